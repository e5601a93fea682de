//! Compiles the XDP program with clang, if there is one. The crate builds without: then it says why it cannot attach.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const SOURCE: &str = "bpf/relay.bpf.c";

fn main() {
    println!("cargo::rustc-check-cfg=cfg(has_program)");
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    match compile(&out.join("relay.bpf.o")) {
        Ok(()) => println!("cargo::rustc-cfg=has_program"),
        Err(reason) => {
            println!("cargo::rustc-env=RELAY_XDP_ABSENT={reason}");
            // A file that is never there: the next build looks for clang again.
            println!("cargo::rerun-if-changed={}", out.join("absent").display());
        }
    }
}

fn compile(object: &Path) -> Result<(), String> {
    let _absent = fs::remove_file(object);
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let target = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb",
        _ => "bpfel",
    };
    let mut command = Command::new(&clang);
    command.args(["-target", target, "-mcpu=v3", "-O2", "-nostdinc", "-ffreestanding", "-Wall", "-Wextra", "-Werror"]);
    command.arg("-c").arg(SOURCE).arg("-o").arg(object);
    match command.output() {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => {
            for line in String::from_utf8_lossy(&done.stderr).lines() {
                println!("cargo::warning={line}");
            }
            Err("clang could not compile it".into())
        }
        Err(_) => Err("clang was not found".into()),
    }
}

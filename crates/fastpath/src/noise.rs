//! WireGuard's handshake, `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s`: messages in, transport keys out.
//!
//! Randomness is an argument, macs and cookies are the caller's, and keys leave only as a [`Keypair`].

use std::sync::{Arc, Mutex};

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};

/// Length of a handshake initiation with both macs.
pub const INITIATION_LEN: usize = 148;
/// Length of a handshake response with both macs.
pub const RESPONSE_LEN: usize = 92;

const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
const MACS_LEN: usize = 32;
const PSK_LOCATION: usize = 2;

/// The message is malformed, not for us, or fails authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeError(pub &'static str);

impl std::fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for HandshakeError {}

/// An X25519 key pair.
#[derive(Clone)]
pub struct StaticKey {
    private: [u8; 32],
    public: [u8; 32],
}

impl StaticKey {
    #[must_use]
    pub fn new(private: [u8; 32]) -> Self {
        let mut dh = curve25519();
        dh.set(&private);
        let mut public = [0; 32];
        public.copy_from_slice(dh.pubkey());
        Self { private, public }
    }

    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.public
    }
}

/// Transport keys of one finished handshake.
pub struct Keypair {
    pub local_index: u32,
    pub remote_index: u32,
    pub is_initiator: bool,
    pub(crate) sealing: [u8; 32],
    pub(crate) opening: [u8; 32],
}

impl Keypair {
    fn split(state: &mut HandshakeState, is_initiator: bool, local_index: u32, remote_index: u32) -> Self {
        let (of_initiator, of_responder) = state.dangerously_get_raw_split();
        let (sealing, opening) = if is_initiator { (of_initiator, of_responder) } else { (of_responder, of_initiator) };
        Self { local_index, remote_index, is_initiator, sealing, opening }
    }
}

/// The initiator's half of a handshake, waiting for the response.
pub struct Initiation {
    state: HandshakeState,
    sender_index: u32,
}

impl Initiation {
    /// Makes the initiation message, its macs zero.
    ///
    /// # Errors
    /// If `remote_public` cannot be used for a key agreement.
    pub fn start(
        local: &StaticKey,
        remote_public: &[u8; 32],
        psk: &[u8; 32],
        sender_index: u32,
        timestamp: &[u8; 12],
        ephemeral: [u8; 32],
    ) -> Result<(Self, [u8; INITIATION_LEN]), HandshakeError> {
        let random = FixedRandom::default();
        random.give(ephemeral);
        let mut state = Builder::with_resolver(params(), Box::new(Resolver(random)))
            .prologue(IDENTIFIER)
            .and_then(|b| b.local_private_key(&local.private))
            .and_then(|b| b.remote_public_key(remote_public))
            .and_then(|b| b.psk(PSK_LOCATION as u8, psk))
            .and_then(Builder::build_initiator)
            .map_err(|_| HandshakeError("cannot start a handshake"))?;
        let mut message = [0; INITIATION_LEN];
        message[0] = 1;
        message[4..8].copy_from_slice(&sender_index.to_le_bytes());
        state
            .write_message(timestamp, &mut message[8..INITIATION_LEN - MACS_LEN])
            .map_err(|_| HandshakeError("cannot write the initiation"))?;
        Ok((Self { state, sender_index }, message))
    }

    /// Reads the response. A failed attempt leaves the initiation usable.
    ///
    /// # Errors
    /// If the response is malformed, answers another initiation or does not authenticate.
    pub fn finish(&mut self, response: &[u8]) -> Result<Keypair, HandshakeError> {
        if self.state.is_handshake_finished() {
            return Err(HandshakeError("the handshake is finished"));
        }
        let body = body(response, 2, RESPONSE_LEN)?;
        if u32_at(response, 8) != self.sender_index {
            return Err(HandshakeError("the response is for another initiation"));
        }
        self.state
            .read_message(&body[8..], &mut [0; 64])
            .map_err(|_| HandshakeError("the response does not authenticate"))?;
        Ok(Keypair::split(&mut self.state, true, self.sender_index, u32_at(response, 4)))
    }
}

/// A peer's initiation whose static key and timestamp were decrypted; not yet answered.
pub struct OpenedInitiation {
    state: HandshakeState,
    random: FixedRandom,
    remote_public: [u8; 32],
    timestamp: [u8; 12],
    sender_index: u32,
}

impl OpenedInitiation {
    /// Reads an initiation; its macs are not checked.
    ///
    /// # Errors
    /// If it is malformed or not made for our static key.
    pub fn open(local: &StaticKey, message: &[u8]) -> Result<Self, HandshakeError> {
        let body = body(message, 1, INITIATION_LEN)?;
        let random = FixedRandom::default();
        let mut state = Builder::with_resolver(params(), Box::new(Resolver(random.clone())))
            .prologue(IDENTIFIER)
            .and_then(|b| b.local_private_key(&local.private))
            .and_then(Builder::build_responder)
            .map_err(|_| HandshakeError("cannot answer a handshake"))?;
        let mut payload = [0; INITIATION_LEN];
        let len = state
            .read_message(&body[4..], &mut payload)
            .map_err(|_| HandshakeError("the initiation does not authenticate"))?;
        let timestamp = payload[..len].try_into().map_err(|_| HandshakeError("the initiation has no timestamp"))?;
        let remote_public = state
            .get_remote_static()
            .and_then(|key| key.try_into().ok())
            .ok_or(HandshakeError("the initiation has no static key"))?;
        Ok(Self { state, random, remote_public, timestamp, sender_index: u32_at(message, 4) })
    }

    #[must_use]
    pub fn remote_public(&self) -> [u8; 32] {
        self.remote_public
    }

    #[must_use]
    pub fn timestamp(&self) -> [u8; 12] {
        self.timestamp
    }

    #[must_use]
    pub fn sender_index(&self) -> u32 {
        self.sender_index
    }

    /// Makes the response, its macs zero, and our keys.
    ///
    /// # Errors
    /// If it was called before.
    pub fn respond(
        &mut self,
        psk: &[u8; 32],
        sender_index: u32,
        ephemeral: [u8; 32],
    ) -> Result<([u8; RESPONSE_LEN], Keypair), HandshakeError> {
        if self.state.is_handshake_finished() {
            return Err(HandshakeError("the initiation was answered before"));
        }
        self.random.give(ephemeral);
        let mut message = [0; RESPONSE_LEN];
        message[0] = 2;
        message[4..8].copy_from_slice(&sender_index.to_le_bytes());
        message[8..12].copy_from_slice(&self.sender_index.to_le_bytes());
        self.state
            .set_psk(PSK_LOCATION, psk)
            .and_then(|()| self.state.write_message(&[], &mut message[12..RESPONSE_LEN - MACS_LEN]))
            .map_err(|_| HandshakeError("cannot write the response"))?;
        let keypair = Keypair::split(&mut self.state, false, sender_index, self.sender_index);
        Ok((message, keypair))
    }
}

/// XChaCha20-Poly1305, as cookie replies use it.
///
/// # Errors
/// If the plaintext is longer than the cipher allows.
pub fn xchacha20poly1305_seal(
    key: &[u8; 32],
    nonce: &[u8; 24],
    aad: &[u8],
    msg: &[u8],
) -> Result<Vec<u8>, HandshakeError> {
    XChaCha20Poly1305::new(key.into())
        .encrypt(nonce.into(), Payload { msg, aad })
        .map_err(|_| HandshakeError("the plaintext is too long"))
}

/// The reverse of [`xchacha20poly1305_seal`].
///
/// # Errors
/// If it does not authenticate.
pub fn xchacha20poly1305_open(
    key: &[u8; 32],
    nonce: &[u8; 24],
    aad: &[u8],
    msg: &[u8],
) -> Result<Vec<u8>, HandshakeError> {
    XChaCha20Poly1305::new(key.into())
        .decrypt(nonce.into(), Payload { msg, aad })
        .map_err(|_| HandshakeError("the ciphertext does not authenticate"))
}

/// The message without its type and macs.
fn body(message: &[u8], message_type: u8, len: usize) -> Result<&[u8], HandshakeError> {
    if message.len() != len {
        return Err(HandshakeError("the handshake message has a wrong length"));
    }
    if message[..4] != [message_type, 0, 0, 0] {
        return Err(HandshakeError("the handshake message has a wrong type"));
    }
    Ok(&message[4..len - MACS_LEN])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn params() -> NoiseParams {
    PATTERN.parse().expect("the pattern is a constant that snow knows")
}

fn curve25519() -> Box<dyn Dh> {
    DefaultResolver.resolve_dh(&DHChoice::Curve25519).expect("the feature use-curve25519 is on")
}

/// Randomness that the caller gave, good for one key; without it there is none.
#[derive(Clone, Default)]
struct FixedRandom(Arc<Mutex<Option<[u8; 32]>>>);

impl FixedRandom {
    fn give(&self, bytes: [u8; 32]) {
        *self.0.lock().expect("no code panics while it holds this lock") = Some(bytes);
    }
}

impl Random for FixedRandom {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let given = self.0.lock().map_err(|_| snow::Error::Rng)?.take().ok_or(snow::Error::Rng)?;
        if dest.len() != given.len() {
            return Err(snow::Error::Rng);
        }
        dest.copy_from_slice(&given);
        Ok(())
    }
}

struct Resolver(FixedRandom);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(self.0.clone()))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const PSK: [u8; 32] = [7; 32];

    /// A finished handshake: the initiator's and the responder's keys.
    pub(crate) fn keypairs(initiator_index: u32, responder_index: u32) -> (Keypair, Keypair) {
        let (a, b) = (StaticKey::new([1; 32]), StaticKey::new([2; 32]));
        let (mut initiation, message) =
            Initiation::start(&a, &b.public_key(), &PSK, initiator_index, &[9; 12], [3; 32]).unwrap();
        let mut opened = OpenedInitiation::open(&b, &message).unwrap();
        let (response, of_b) = opened.respond(&PSK, responder_index, [4; 32]).unwrap();
        (initiation.finish(&response).unwrap(), of_b)
    }

    #[test]
    fn both_sides_derive_the_same_keys() {
        let (a, b) = keypairs(10, 20);

        assert_eq!((a.sealing, a.opening), (b.opening, b.sealing));
        assert_ne!(a.sealing, a.opening);
        assert_eq!((a.local_index, a.remote_index, a.is_initiator), (10, 20, true));
        assert_eq!((b.local_index, b.remote_index, b.is_initiator), (20, 10, false));
    }

    #[test]
    fn an_initiation_survives_a_forged_response() {
        let (a, b) = (StaticKey::new([1; 32]), StaticKey::new([2; 32]));
        let (mut initiation, message) = Initiation::start(&a, &b.public_key(), &PSK, 5, &[9; 12], [3; 32]).unwrap();
        let (response, _) = OpenedInitiation::open(&b, &message).unwrap().respond(&PSK, 6, [4; 32]).unwrap();
        for at in [13, 50] {
            let mut forged = response;
            forged[at] ^= 1;
            assert!(initiation.finish(&forged).is_err());
        }

        assert!(initiation.finish(&response).is_ok());
        assert!(initiation.finish(&response).is_err());
    }

    #[test]
    fn a_wrong_psk_fails_at_the_initiator() {
        let (a, b) = (StaticKey::new([1; 32]), StaticKey::new([2; 32]));
        let (mut initiation, message) = Initiation::start(&a, &b.public_key(), &PSK, 5, &[9; 12], [3; 32]).unwrap();
        let mut opened = OpenedInitiation::open(&b, &message).unwrap();

        let (response, _) = opened.respond(&[8; 32], 6, [4; 32]).unwrap();

        assert!(initiation.finish(&response).is_err());
        assert!(opened.respond(&PSK, 6, [4; 32]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
            let key = StaticKey::new([2; 32]);
            proptest::prop_assert!(OpenedInitiation::open(&key, &bytes).is_err());
        }
    }
}

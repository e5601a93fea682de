// Command pion uses a relay as pion's TURN client and pion's WebRTC do, and says in JSON what came of it.
//
// A certificate that a TLS connection is to trust is named by SSL_CERT_FILE.
package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/pion/turn/v5"
	"github.com/pion/webrtc/v4"
)

const (
	echoes   = 200
	messages = 100
	patience = 5 * time.Second
	// Over TCP pion waits for 9 bytes before it looks at a message: channel data of up to 4 bytes waits for the next.
	smallest = 5
)

// settings say which relay is used, how, and by whom.
type settings struct{ server, way, user, password string }

func main() {
	var s settings
	flag.StringVar(&s.server, "server", "", "host:port of the relay")
	flag.StringVar(&s.way, "way", "udp", "udp, tcp or tls")
	flag.StringVar(&s.user, "user", "", "its user")
	flag.StringVar(&s.password, "password", "", "and the password")
	flag.Parse()
	tasks := map[string]func(settings) (any, error){"turn": relayed, "refused": refused, "webrtc": channels}
	task, known := tasks[flag.Arg(0)]
	if !known {
		fatal(errors.New("which task: turn, refused or webrtc"))
	}
	said, err := task(s)
	if err != nil {
		fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		fatal(err)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// counter notes what kind of messages pass a socket.
type counter struct {
	net.PacketConn
	mutex sync.Mutex
	seen  map[string]int
}

func (c *counter) note(direction string, message []byte) {
	kind := ""
	switch {
	case len(message) < 2:
		return
	case message[0]&0xc0 == 0x40:
		kind = "channel data"
	case message[0] == 0x00 && message[1] == 0x16:
		kind = "send indication"
	case message[0] == 0x00 && message[1] == 0x17:
		kind = "data indication"
	default:
		return
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.seen[direction+" "+kind]++
}

func (c *counter) WriteTo(message []byte, to net.Addr) (int, error) {
	c.note("sent", message)
	return c.PacketConn.WriteTo(message, to)
}

func (c *counter) ReadFrom(buffer []byte) (int, net.Addr, error) {
	n, from, err := c.PacketConn.ReadFrom(buffer)
	if err == nil {
		c.note("received", buffer[:n])
	}
	return n, from, err
}

// dial opens the way to the relay.
func dial(s settings) (net.PacketConn, error) {
	switch s.way {
	case "udp":
		return net.ListenPacket("udp4", "127.0.0.1:0")
	case "tcp":
		conn, err := net.Dial("tcp", s.server)
		if err != nil {
			return nil, err
		}
		return turn.NewSTUNConn(conn), nil
	case "tls":
		conn, err := tls.Dial("tcp", s.server, &tls.Config{MinVersion: tls.VersionTLS12})
		if err != nil {
			return nil, err
		}
		return turn.NewSTUNConn(conn), nil
	}
	return nil, fmt.Errorf("no such way: %s", s.way)
}

// user is one client of the relay.
type user struct {
	*turn.Client
	conn *counter
}

func newUser(s settings) (*user, error) {
	conn, err := dial(s)
	if err != nil {
		return nil, err
	}
	counted := &counter{PacketConn: conn, seen: map[string]int{}}
	client, err := turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: s.server, TURNServerAddr: s.server, Username: s.user, Password: s.password, Conn: counted,
	})
	if err == nil {
		err = client.Listen()
	}
	return &user{client, counted}, err
}

func (u *user) leave() {
	u.Close()
	_ = u.conn.Close()
}

// relayed has two allocations talk to each other, and one of them to a host outside.
func relayed(s settings) (any, error) {
	left, err := newUser(s)
	if err != nil {
		return nil, err
	}
	defer left.leave()
	right, err := newUser(s)
	if err != nil {
		return nil, err
	}
	defer right.leave()
	mapped, err := left.SendBindingRequest()
	if err != nil {
		return nil, fmt.Errorf("binding: %w", err)
	}
	own, err := left.Allocate()
	if err != nil {
		return nil, fmt.Errorf("left's allocation: %w", err)
	}
	other, err := right.Allocate()
	if err != nil {
		return nil, fmt.Errorf("right's allocation: %w", err)
	}
	if err := left.CreatePermission(other.LocalAddr()); err != nil {
		return nil, fmt.Errorf("left's permission: %w", err)
	}
	if err := right.CreatePermission(own.LocalAddr()); err != nil {
		return nil, fmt.Errorf("right's permission: %w", err)
	}
	between, err := echo(own, other, other.LocalAddr(), own.LocalAddr())
	if err != nil {
		return nil, fmt.Errorf("between allocations: %w", err)
	}
	peer, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer peer.Close()
	outside, err := echo(own, peer, peer.LocalAddr(), own.LocalAddr())
	if err != nil {
		return nil, fmt.Errorf("to a peer: %w", err)
	}
	if err := errors.Join(own.Close(), other.Close()); err != nil {
		return nil, fmt.Errorf("the end: %w", err)
	}
	return map[string]any{
		"mapped": mapped.String() == left.conn.LocalAddr().String(), "between": between, "outside": outside,
		"left": left.conn.seen, "right": right.conn.seen,
	}, nil
}

// echo sends from one to the other and back, and counts what came back unharmed and from where it should.
func echo(from, to net.PacketConn, there, here net.Addr) (int, error) {
	unharmed, buffer := 0, make([]byte, 2000)
	deadline := time.Now().Add(4 * patience)
	if err := errors.Join(from.SetReadDeadline(deadline), to.SetReadDeadline(deadline)); err != nil {
		return 0, err
	}
	for number := range echoes {
		payload := bytes.Repeat([]byte{byte(number)}, smallest+number*6)
		if _, err := from.WriteTo(payload, there); err != nil {
			return unharmed, err
		}
		n, source, err := to.ReadFrom(buffer)
		if err != nil {
			return unharmed, err
		}
		if source.String() != here.String() {
			return unharmed, fmt.Errorf("came from %s, not %s", source, here)
		}
		if _, err := to.WriteTo(buffer[:n], source); err != nil {
			return unharmed, err
		}
		n, source, err = from.ReadFrom(buffer)
		if err != nil {
			return unharmed, err
		}
		if source.String() == there.String() && bytes.Equal(buffer[:n], payload) {
			unharmed++
		}
	}
	return unharmed, nil
}

// refused tells how the relay refuses what it does not do, and whom it does not know.
func refused(s settings) (any, error) {
	said := map[string]string{}
	stranger := s
	stranger.password = "not " + s.password
	for name, attempt := range map[string]settings{"stranger": stranger, "tcp allocation": s} {
		client, err := newUser(attempt)
		if err != nil {
			return nil, err
		}
		if name == "stranger" {
			_, err = client.Allocate()
		} else {
			_, err = client.AllocateTCP()
		}
		client.leave()
		if err == nil {
			return nil, fmt.Errorf("%s: granted", name)
		}
		said[name] = err.Error()
	}
	return said, nil
}

// channels has two WebRTC connections that may use nothing but the relay echo messages.
func channels(s settings) (any, error) {
	url := map[string]string{
		"udp": "turn:" + s.server + "?transport=udp", "tcp": "turn:" + s.server + "?transport=tcp",
		"tls": "turns:" + s.server + "?transport=tcp",
	}[s.way]
	configuration := webrtc.Configuration{
		ICEServers:         []webrtc.ICEServer{{URLs: []string{url}, Username: s.user, Credential: s.password}},
		ICETransportPolicy: webrtc.ICETransportPolicyRelay,
	}
	left, err := webrtc.NewPeerConnection(configuration)
	if err != nil {
		return nil, err
	}
	defer left.Close()
	right, err := webrtc.NewPeerConnection(configuration)
	if err != nil {
		return nil, err
	}
	defer right.Close()
	right.OnDataChannel(func(channel *webrtc.DataChannel) {
		channel.OnMessage(func(message webrtc.DataChannelMessage) { _ = channel.Send(message.Data) })
	})
	channel, err := left.CreateDataChannel("echo", nil)
	if err != nil {
		return nil, err
	}
	opened, returned := make(chan struct{}), make(chan []byte, messages)
	channel.OnOpen(func() { close(opened) })
	channel.OnMessage(func(message webrtc.DataChannelMessage) { returned <- message.Data })
	if err := introduce(left, right); err != nil {
		return nil, err
	}
	select {
	case <-opened:
	case <-time.After(4 * patience):
		return nil, errors.New("the channel did not open")
	}
	unharmed := 0
	for number := range messages {
		payload := bytes.Repeat([]byte{byte(number)}, 1+number*40)
		if err := channel.Send(payload); err != nil {
			return nil, err
		}
		select {
		case data := <-returned:
			if bytes.Equal(data, payload) {
				unharmed++
			}
		case <-time.After(patience):
			return nil, fmt.Errorf("message %d did not come back", number)
		}
	}
	pair, err := left.SCTP().Transport().ICETransport().GetSelectedCandidatePair()
	if err != nil || pair == nil {
		return nil, fmt.Errorf("no selected pair: %w", err)
	}
	return map[string]any{"echoed": unharmed, "kinds": []string{pair.Local.Typ.String(), pair.Remote.Typ.String()}}, nil
}

// introduce exchanges offer and answer, each with all candidates.
func introduce(left, right *webrtc.PeerConnection) error {
	offer, err := left.CreateOffer(nil)
	if err != nil {
		return err
	}
	gathered := webrtc.GatheringCompletePromise(left)
	if err := left.SetLocalDescription(offer); err != nil {
		return err
	}
	<-gathered
	if err := right.SetRemoteDescription(*left.LocalDescription()); err != nil {
		return err
	}
	answer, err := right.CreateAnswer(nil)
	if err != nil {
		return err
	}
	gathered = webrtc.GatheringCompletePromise(right)
	if err := right.SetLocalDescription(answer); err != nil {
		return err
	}
	<-gathered
	return left.SetRemoteDescription(*right.LocalDescription())
}

package reality

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/transport"
)

// The tests of this file need Xray, which the module in interop builds and names in
// COMMUCAT_XRAY. Above TLS Xray speaks VLESS; as much of it as is needed is here:
//
//	request   version 0 | id 16 | addons 1 = 0 | command 1 = TCP | port 2 | type 1 = IPv4 | address 4
//	response  version 0 | addons 0

const vlessID = "3b0ffe9a-1c0c-4d4c-9e7b-2a5f0c6f1d11"

func xray(t *testing.T) string {
	t.Helper()
	program := os.Getenv("COMMUCAT_XRAY")
	if program == "" {
		t.Skip("run by the module in interop")
	}
	return program
}

type object = map[string]any

// runXray starts Xray with a configuration and waits until addr answers.
func runXray(t *testing.T, program, addr string, config object) {
	t.Helper()
	dir := t.TempDir()
	b, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	roots, file := filepath.Join(dir, "roots.pem"), filepath.Join(dir, "config.json")
	for name, content := range map[string][]byte{roots: testAuthority().rootPEM, file: b} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start(t, addr, "/usr/bin/env", "SSL_CERT_FILE="+roots, program, "run", "-c", file)
}

func hostPort(t *testing.T, addr string) (string, int) {
	t.Helper()
	a := transport.ParseAddrPort(addr)
	if !a.IsValid() {
		t.Fatalf("address %q", addr)
	}
	return a.Addr().String(), int(a.Port())
}

// TestXrayClient: Xray as client of our server.
func TestXrayClient(t *testing.T) {
	program := xray(t)
	for name, cover := range covers(t) {
		r := startServer(t, baseConfig(t, cover))
		go func() {
			for {
				c, err := r.ln.Accept()
				if err != nil {
					return
				}
				go serveVLESS(c)
			}
		}()
		for _, fp := range []string{"chrome", "firefox", "safari", "edge"} {
			t.Run(name+"/"+fp, func(t *testing.T) {
				entrance := freeAddress(t)
				_, door := hostPort(t, entrance)
				host, port := hostPort(t, r.addr)
				e := r.endpoint()
				runXray(t, program, entrance, object{
					"log":      object{"loglevel": "warning"},
					"inbounds": []object{{"listen": "127.0.0.1", "port": door, "protocol": "dokodemo-door", "settings": object{"address": "127.0.0.1", "port": 9, "network": "tcp"}}},
					"outbounds": []object{{
						"protocol": "vless",
						"settings": object{"vnext": []object{{"address": host, "port": port, "users": []object{{"id": vlessID, "encryption": "none"}}}}},
						"streamSettings": object{"network": "raw", "security": "reality", "realitySettings": object{
							"serverName": siteName, "fingerprint": fp, "publicKey": e.Params[ParamPublicKey], "shortId": e.Params[ParamShortID],
						}},
					}},
				})
				c, err := net.Dial("tcp", entrance)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				roundTrip(t, c, 200_000)
			})
		}
		if n := r.ln.figures.entered.Load(); n < 4 {
			t.Errorf("%s: %d were let in", name, n)
		}
	}
}

// serveVLESS answers like an outbound that echoes.
func serveVLESS(c net.Conn) {
	defer c.Close()
	head := make([]byte, 26)
	if _, err := io.ReadFull(c, head); err != nil || head[0] != 0 || head[17] != 0 || head[18] != 1 || head[21] != 1 {
		return
	}
	if _, err := c.Write([]byte{0, 0}); err != nil {
		return
	}
	_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
}

// roundTrip sends size bytes and wants them back, without an end of stream.
func roundTrip(t *testing.T, c net.Conn, size int) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	sent, got := randomBytes(size, 7), make([]byte, size)
	wrote := make(chan error, 1)
	go func() { _, err := c.Write(sent); wrote <- err }()
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	if err := <-wrote; err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("other bytes came back, %v", err)
	}
}

// TestXrayServer: our client at Xray's server.
func TestXrayServer(t *testing.T) {
	program := xray(t)
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	for name, cover := range map[string]string{"go": goCover(t), "nginx": nginxCover(t)} {
		p, d := testParams(t)
		addr := freeAddress(t)
		host, port := hostPort(t, addr)
		runXray(t, program, addr, object{
			"log": object{"loglevel": "warning"},
			"inbounds": []object{{
				"listen": host, "port": port, "protocol": "vless",
				"settings": object{"clients": []object{{"id": vlessID}}, "decryption": "none"},
				"streamSettings": object{"network": "raw", "security": "reality", "realitySettings": object{
					"target": cover, "serverNames": []string{siteName}, "privateKey": strings.TrimSpace(string(d.PrivateKey)),
					"shortIds": []string{d.ShortIDs[0]}, "maxTimeDiff": 60000,
				}},
			}},
			"outbounds": []object{{"protocol": "freedom"}},
		})
		for _, fp := range Fingerprints() {
			t.Run(name+"/"+fp, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				c, err := dialRig(ctx, p.endpoint(host, uint16(port)), fp)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := c.Write(requestVLESS(t, echo.Addr())); err != nil {
					t.Fatal(err)
				}
				_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
				head := make([]byte, 2)
				done := make(chan error, 1)
				go func() { _, err := io.ReadFull(c, head); done <- err }()
				// The response head comes with the first bytes.
				if _, err := c.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				if err := <-done; err != nil || head[0] != 0 || head[1] != 0 {
					t.Fatalf("response %x, %v", head, err)
				}
				if _, err := io.ReadFull(c, head[:1]); err != nil || head[0] != 'x' {
					t.Fatalf("first byte %q, %v", head[:1], err)
				}
				roundTrip(t, c, 200_000)
			})
		}
	}
}

func requestVLESS(t *testing.T, to net.Addr) []byte {
	t.Helper()
	id, err := hex.DecodeString(strings.ReplaceAll(vlessID, "-", ""))
	if err != nil {
		t.Fatal(err)
	}
	at := transport.AddrPort(to)
	b := append([]byte{0}, id...)
	b = append(b, 0, 1)
	b = binary.BigEndian.AppendUint16(b, at.Port())
	b = append(b, 1)
	ip := at.Addr().As4()
	return append(b, ip[:]...)
}

package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/transport/onion/tornet"
	"github.com/commucat/commucat/plugins/transport/reality"
	"github.com/commucat/commucat/sdk"
)

// The test binary is also the program, as tor starts it.
func TestMain(m *testing.M) {
	if os.Getenv("TOR_PT_MANAGED_TRANSPORT_VER") != "" {
		main()
	}
	os.Exit(m.Run())
}

// TestTorBuildsACircuitThroughReality: a bridge and a client of a Tor network on this
// machine, both with this program as their pluggable transport.
func TestTorBuildsACircuitThroughReality(t *testing.T) {
	dir, err := os.MkdirTemp("", "tornet-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	n, err := tornet.Start(ctx, filepath.Join(dir, "net"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)

	// The site that strangers at the bridge's port see.
	cover := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "a web site") }))
	cover.EnableHTTP2, cover.TLS = true, &tls.Config{MinVersion: tls.VersionTLS13}
	cover.StartTLS()
	t.Cleanup(cover.Close)
	roots := filepath.Join(dir, "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cover.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	draft, err := reality.Draw(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	at, err := tornet.Free()
	if err != nil {
		t.Fatal(err)
	}
	or, err := tornet.Free()
	if err != nil {
		t.Fatal(err)
	}
	bridge, err := n.Run("bridge", "BridgeRelay 1", "PublishServerDescriptor 0", "SocksPort 0", "Address 127.0.0.1", fmt.Sprintf("ORPort 127.0.0.1:%d IPv4Only", or),
		"ExtORPort auto", "ExitPolicy reject *:*", "Nickname bridge", "ServerTransportPlugin reality exec "+program, fmt.Sprintf("ServerTransportListenAddr reality 127.0.0.1:%d", at),
		fmt.Sprintf("ServerTransportOptions reality cover=%s server_names=example.com roots=%s force=true private_key=%s short_ids=%s",
			cover.Listener.Addr(), roots, strings.TrimSpace(string(draft.PrivateKey)), draft.ShortIDs[0]))
	if err != nil {
		t.Fatal(err)
	}
	if err := bridge.Wait(ctx, "Registered server transport 'reality'"); err != nil {
		t.Fatalf("%v\n%s", err, bridge.Log())
	}
	if err := bridge.Bootstrap(ctx); err != nil {
		t.Fatalf("%v\n%s", err, bridge.Log())
	}
	name, err := os.ReadFile(filepath.Join(bridge.Folder(), "fingerprint"))
	if err != nil {
		t.Fatal(err)
	}
	_, fingerprint, _ := strings.Cut(strings.TrimSpace(string(name)), " ")
	client, err := n.Run("client", "SocksPort 0", "UseBridges 1", "ClientTransportPlugin reality exec "+program,
		fmt.Sprintf("Bridge reality 127.0.0.1:%d %s pbk=%s sid=%s sni=example.com fp=chrome", at, fingerprint, draft.PublicKey, draft.ShortIDs[0]))
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Bootstrap(ctx); err != nil {
		t.Fatalf("%v\n%s\n%s", err, client.Log(), bridge.Log())
	}
	// Through the bridge alone: a client that uses bridges knows no other way.
	if log := client.Log(); !strings.Contains(log, "new bridge descriptor 'bridge'") {
		t.Errorf("the bridge was not used:\n%s", log)
	}
}

// The key of a bridge is drawn once.
func TestKeysAreKept(t *testing.T) {
	dir := t.TempDir()
	first, again := map[string]any{}, map[string]any{"short_ids": []any{"ab"}}
	for _, table := range []map[string]any{first, again} {
		if err := realityKeys(dir, table); err != nil {
			t.Fatal(err)
		}
	}
	a, b := first["private_key"].(sdk.Secret), again["private_key"].(sdk.Secret)
	if a.IsZero() || a.Text() != b.Text() || len(first["short_ids"].([]any)) == 0 || len(again["short_ids"].([]any)) != 1 {
		t.Errorf("%v and %v", first, again)
	}
	if info, err := os.Stat(filepath.Join(dir, keyFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	given := map[string]any{"private_key": "x"}
	if err := realityKeys(t.TempDir(), given); err != nil || given["private_key"] != "x" {
		t.Errorf("%v, %v", given, err)
	}
	if err := os.WriteFile(filepath.Join(dir, keyFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := realityKeys(dir, map[string]any{}); err == nil {
		t.Error("a damaged file was read")
	}
}

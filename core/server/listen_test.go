package server

import (
	"net"
	"strings"
	"testing"

	"github.com/commucat/commucat/core/config"
)

// A start that fails at one address leaves no other one open.
func TestBindClosesAfterAnError(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := reloadServer(t)
	s.cfg = config.Default()
	s.cfg.Server.Listen = []config.Address{"127.0.0.1:0", config.Address(taken.Addr().String())}
	if err := s.bind(t.Context()); err == nil || !strings.Contains(err.Error(), "is in use by another program") {
		t.Fatal(err)
	}
	if len(s.public) != 1 {
		t.Fatal(s.public)
	}
	free := s.public[0].Addr().String()
	if err := s.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	again, err := net.Listen("tcp", free)
	if err != nil {
		t.Fatalf("it is still listened on: %v", err)
	}
	again.Close()
}

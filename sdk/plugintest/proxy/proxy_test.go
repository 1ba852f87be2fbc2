package proxy_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/plugintest/proxy"
)

func TestProxy(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	p := proxy.Start(t, ln.Addr().String())
	echo := func(c net.Conn) error {
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
		_, err := io.ReadFull(c, make([]byte, 5))
		return err
	}
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", p.Address())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	c := dial()
	if err := echo(c); err != nil {
		t.Fatal(err)
	}
	p.Slow(30 * time.Millisecond)
	began := time.Now()
	if err := echo(c); err != nil || time.Since(began) < 30*time.Millisecond {
		t.Errorf("slow line: %v after %v", err, time.Since(began))
	}
	p.Slow(0)
	p.Cut()
	if err := echo(c); err == nil {
		t.Error("a connection outlived the cut")
	}
	if err := echo(dial()); err != nil {
		t.Errorf("after the cut: %v", err)
	}
}

package masque

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/commucat/commucat/sdk/transport"
)

// udpPath is where CONNECT-UDP requests go: the default template of RFC 9298 section
// 3, /.well-known/masque/udp/{target_host}/{target_port}/.
const udpPath = "/.well-known/masque/udp/"

const (
	capsuleHeader = "Capsule-Protocol"
	capsuleYes    = "?1"

	resolveTime  = 5 * time.Second // for the name of a target
	settingsTime = 2 * time.Second // for a client's HTTP/3 settings
	idleTunnel   = 2 * time.Minute // RFC 9298 section 3.1: a tunnel to others that carries nothing ends
)

// udpTarget reads the target of a CONNECT-UDP request. Brackets do not belong
// there, but are taken off.
func udpTarget(u *url.URL) (host string, port uint16, err error) {
	rest, ok := strings.CutPrefix(u.EscapedPath(), udpPath)
	if !ok || u.RawQuery != "" {
		return "", 0, errTemplate
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 3 || parts[2] != "" {
		return "", 0, errTemplate
	}
	if host, err = url.PathUnescape(parts[0]); err != nil {
		return "", 0, errTemplate
	}
	host = strings.Trim(host, "[]")
	n, err := strconv.ParseUint(parts[1], 10, 16)
	if err != nil || n == 0 || host == "" || len(host) > 255 || strings.ContainsAny(host, "%/ \x00") {
		return "", 0, errTemplate
	}
	return host, uint16(n), nil
}

// udp answers CONNECT-UDP of a guest and returns when the tunnel is over.
func (s *site) udp(w http.ResponseWriter, r *http.Request, pass *pass) {
	defer pass.leave()
	if !s.cfg.UDP || s.inner == nil {
		refuse(w, r, http.StatusNotImplemented, statusDenied, errProtocol)
		return
	}
	host, port, err := udpTarget(r.URL)
	if err != nil {
		refuse(w, r, http.StatusBadRequest, statusRequest, err)
		return
	}
	if s.itself(r, host, port) {
		s.tunnelInside(w, r, pass)
		return
	}
	if !allows(s.targets, host, port) {
		refuse(w, r, http.StatusForbidden, statusDenied, errTarget)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), resolveTime)
	out, err := s.dialUDP(ctx, host, port)
	cancel()
	if err != nil {
		code, kind, text := failure(err)
		refuse(w, r, code, kind, text)
		return
	}
	defer out.Close()
	s.tunnelOutside(w, r, pass, out)
}

// itself says that a tunnel's target is this site, by the authority of its request.
func (s *site) itself(r *http.Request, host string, port uint16) bool {
	own, ownPort, err := authority(r.Host)
	return err == nil && port == ownPort && strings.EqualFold(host, strings.Trim(own, "[]")) && s.self(r, own)
}

// begin accepts a tunnel.
func (s *site) begin(w http.ResponseWriter, r *http.Request) (*flow, error) {
	w.Header().Set(capsuleHeader, capsuleYes)
	if r.ProtoMajor == 2 {
		return s.beginH2(w, r)
	}
	// Settings say whether the client takes datagrams; they came first or come soon.
	datagrams := false
	if peer, ok := w.(http3.Settingser); ok {
		t := time.NewTimer(settingsTime)
		select {
		case <-peer.ReceivedSettings():
			datagrams = peer.Settings().EnableDatagrams
		case <-r.Context().Done():
		case <-t.C:
		}
		t.Stop()
	}
	w.WriteHeader(http.StatusOK)
	str, err := w.(http3.HTTPStreamer).HTTPStream()
	if err != nil {
		return nil, err
	}
	f := newFlowH3(str, &s.large)
	f.server = true
	if datagrams {
		f.datagrams(connOf(r.Context()), str)
	}
	return f, nil
}

// closing is an io.Closer made of a function.
type closing func()

func (f closing) Close() error { f(); return nil }

// tunnelInside ends the tunnel in this process: its packets are those of a QUIC
// connection to the site.
func (s *site) tunnelInside(w http.ResponseWriter, r *http.Request, pass *pass) {
	f, err := s.begin(w, r)
	if err != nil {
		return
	}
	pass.hold(closing(f.stop))
	from := s.origin(transport.ParseAddrPort(r.RemoteAddr))
	addr := s.inner.add(&tunnel{flow: f, client: from, pass: pass})
	defer s.inner.remove(addr)
	defer f.stop() // first: the connections inside wait for what they are sending
	_ = f.run(func(p []byte) {
		if pass.count(len(p)) {
			s.inner.packets.push(p, addr)
		} else {
			pass.end()
		}
	})
}

// tunnelOutside carries packets between a guest and a target of the list.
func (s *site) tunnelOutside(w http.ResponseWriter, r *http.Request, pass *pass, out *net.UDPConn) {
	nextHop(w, r, peerOf(out))
	f, err := s.begin(w, r)
	if err != nil {
		return
	}
	end := func() { f.stop(); _ = out.Close() }
	pass.hold(closing(end))
	var last lastly
	last.note(time.Now())
	back := make(chan struct{})
	go func() {
		defer close(back)
		defer end()
		buf := make([]byte, maxPayload)
		for {
			_ = out.SetReadDeadline(last.at().Add(idleTunnel))
			n, err := out.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) && !last.idle(time.Now()) {
				continue // the guest sends, and gets no answers
			}
			if err != nil && !transient(err) {
				return
			}
			last.note(time.Now())
			if err == nil && (!pass.count(n) || f.send(buf[:n], 0) != nil) {
				return
			}
		}
	}()
	_ = f.run(func(p []byte) {
		// A packet that the network does not take is lost, as it would be there.
		if pass.count(len(p)) {
			last.note(time.Now())
			_, _ = out.Write(p)
		} else {
			end()
		}
	})
	end()
	<-back
}

// lastly is when a tunnel last carried something, in whichever direction.
type lastly struct{ nanos atomic.Int64 }

func (l *lastly) note(now time.Time)      { l.nanos.Store(now.UnixNano()) }
func (l *lastly) at() time.Time           { return time.Unix(0, l.nanos.Load()) }
func (l *lastly) idle(now time.Time) bool { return now.Sub(l.at()) >= idleTunnel }

// tunnel is a CONNECT-UDP stream that ends in this process.
type tunnel struct {
	flow   *flow
	client netip.AddrPort // where it comes from
	pass   *pass
	conns  []*quic.Conn // that came through it; guarded by innerEndpoint.mu
}

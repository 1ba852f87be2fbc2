package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// listeners dials what a running relay listens on, and tries to bind what one
// that does not run would.
func (e *examination) listeners(ctx context.Context) {
	if e.hidden {
		return
	}
	if e.status == nil {
		for _, a := range e.Config.Server.Listen {
			e.bind(ctx, string(a))
		}
		return
	}
	seen := map[string]bool{}
	for _, l := range e.status.Listeners {
		if at := l.Network + " " + l.Address; !seen[at] {
			seen[at] = true
			e.reach(ctx, l)
		}
	}
	if len(seen) == 0 {
		e.add("listeners", Wrong, "the relay has no public listener", e.set("[server] listen"))
	}
}

// reach dials what can be dialled without a client's keys: a UDP transport answers
// nobody else, and a plugin's TCP port need not speak TLS.
func (e *examination) reach(ctx context.Context, l Listener) {
	check := "listener " + l.Address
	if l.Network != "tcp" {
		e.fine(check, "%s of %s; to try it: %s", l.Network, l.Transport, e.command("transport test", l.Transport))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{
		ServerName: string(e.Config.Server.Domain), NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS13,
		InsecureSkipVerify: true, // whether it is trusted is another check
	}}
	dial, answer := d.DialContext, "answers TLS"
	if !l.Web {
		dial, answer = new(net.Dialer).DialContext, "takes connections; to try it: "+e.command("transport test", l.Transport)
	}
	c, err := dial(ctx, "tcp", l.Address)
	if err != nil {
		e.add(check, Wrong, "cannot be reached from this machine: "+err.Error(), "look at the firewall: nft list ruleset")
		return
	}
	c.Close()
	e.fine(check, "%s", answer)
}

func (e *examination) bind(ctx context.Context, address string) {
	check := "listener " + address
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	_, port, _ := net.SplitHostPort(address)
	switch {
	case err == nil:
		ln.Close()
		e.fine(check, "free")
	case errors.Is(err, syscall.EADDRINUSE):
		e.add(check, Wrong, "in use by another program", fmt.Sprintf("ss -ltnp 'sport = :%s'", port))
	case errors.Is(err, syscall.EACCES):
		self, _ := os.Executable() // only for the text
		e.add(check, Wrong, "needs more rights", "AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit file, or setcap cap_net_bind_service=+ep "+self)
	default:
		e.add(check, Wrong, err.Error(), e.set("[server] listen"))
	}
}

// ledger has the audit chain checked where that is possible.
func (e *examination) ledger(ctx context.Context, made bool) {
	const check = "audit chain"
	switch {
	case !made:
		e.fine(check, "not begun yet")
		return
	case e.status != nil:
		if _, bad := e.status.Failed["ledger"]; !bad {
			e.fine(check, "written without a failure; to check all of it stop the relay and run 'commucat audit verify'")
		}
		return
	}
	st, err := os.Stat(e.Data)
	if err == nil && owner(st) != os.Geteuid() {
		e.add(check, Weak, "not checked: the data folder belongs to another user", "run this as the relay's own user")
		return
	}
	for _, f := range e.out {
		// What is wrong with the folder or its keys has been said; the check
		// would only say it again.
		if f.Level == Wrong && (f.Check == "data folder" || f.Check == "keys") {
			return
		}
	}
	n, err := e.Verify(ctx)
	if err != nil {
		e.add(check, Wrong, err.Error(), "commucat audit verify --data "+e.Data)
		return
	}
	e.fine(check, "%d records, unbroken", n)
}

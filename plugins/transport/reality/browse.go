package reality

import (
	"bufio"
	"io"
	"net/http"
	"time"

	tls "github.com/refraction-networking/utls"
	"golang.org/x/net/http2"
)

// A visit to the cover is one page.
const (
	visitTime  = 10 * time.Second
	visitBytes = 512 << 10
)

// browse asks the cover for its first page as the imitated browser would, in the
// background and within visitTime, and closes the connection. The site's clock, which
// its certificate vouches for, is told to serverTime.
func browse(conn *tls.UConn, a *attempt, serverTime func(time.Time)) {
	go func() {
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(visitTime))
		answer, err := visit(conn, a)
		if err != nil {
			return
		}
		defer answer.Body.Close()
		if date, err := http.ParseTime(answer.Header.Get("Date")); err == nil && serverTime != nil {
			serverTime(date)
		}
		_, _ = io.CopyN(io.Discard, answer.Body, visitBytes)
	}()
}

func visit(conn *tls.UConn, a *attempt) (*http.Response, error) {
	req, err := http.NewRequest(http.MethodGet, "https://"+a.name+"/", http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", a.profile.agent)
	req.Header.Set("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
	req.Header.Set("Accept-Language", "en-US,en;q=0.9")
	if conn.ConnectionState().NegotiatedProtocol == http2.NextProtoTLS {
		c, err := new(http2.Transport).NewClientConn(conn)
		if err != nil {
			return nil, err
		}
		return c.RoundTrip(req)
	}
	req.Header.Set("Connection", "keep-alive")
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(conn), req)
}

package masque

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/quic-go/quic-go"
)

// flow carries UDP payloads over one CONNECT-UDP stream: as QUIC datagrams where
// both ends have them, else as capsules. Whatever comes in either form is taken.
type flow struct {
	body io.Reader
	out  io.Writer
	// quic is nil where there are only capsules.
	quic datagrammer

	writing sync.Mutex
	buf     []byte
}

// datagrammer is what http3.Stream and http3.RequestStream have for datagrams.
type datagrammer interface {
	SendDatagram([]byte) error
	ReceiveDatagram(context.Context) ([]byte, error)
}

// send sends one payload. It blocks while the peer's connection is busy; what is
// too large for it is dropped, as a network would.
func (f *flow) send(payload []byte) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	if f.quic == nil {
		f.buf = appendCapsule(f.buf[:0], payload)
		_, err := f.out.Write(f.buf)
		return err
	}
	f.buf = appendDatagram(f.buf[:0], payload)
	err := f.quic.SendDatagram(f.buf)
	var large *quic.DatagramTooLargeError
	if errors.As(err, &large) {
		return nil
	}
	return err
}

// run gives every payload that comes to deliver, which may keep it, until the stream
// ends. deliver is called by two goroutines at most.
func (f *flow) run(deliver func([]byte)) error {
	ctx, cancel := context.WithCancel(context.Background())
	var reader sync.WaitGroup
	defer reader.Wait()
	defer cancel()
	if f.quic != nil {
		reader.Go(func() {
			for {
				b, err := f.quic.ReceiveDatagram(ctx)
				if err != nil {
					return
				}
				// A malformed one is dropped: its stream is not worth less for it.
				if payload, ok, _ := parseDatagram(b); ok {
					deliver(payload)
				}
			}
		})
	}
	c := newCapsules(f.body)
	for {
		payload, err := c.next()
		if err != nil {
			return err
		}
		deliver(payload)
	}
}

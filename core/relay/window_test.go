package relay

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

// slowDirectory answers after d, as a disk does.
type slowDirectory struct {
	storage.Directory
	d *time.Duration
}

func (s slowDirectory) Get(ctx context.Context, now time.Time, k []storage.Key) ([]storage.Record, error) {
	time.Sleep(*s.d)
	return s.Directory.Get(ctx, now, k)
}

// TestEverybodyWhoWaitsForRoomIsWoken: the reader waits for room behind a frame that
// waits for storage, and that frame waits for room in the window. The message that
// leaves the window wakes both, also if the reader has waited longer.
func TestEverybodyWhoWaitsForRoomIsWoken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var delay time.Duration
		b := newBed(t, func(o *Options) { o.Store.Directory = slowDirectory{o.Store.Directory, &delay} })
		defer b.stop()
		s := b.connect("s.1", allCaps, 0)
		b.acc.add("a.1", allCaps)
		b.acc.add("b.1", allCaps)
		s.send("a.1", "the route is known")
		settle()
		s.acked()
		gate := make(chan struct{})
		b.store.set(func() { b.store.gate = gate })
		delay = 10 * time.Millisecond
		big := strings.Repeat("x", 700<<10)
		read := make(chan error, 1)
		go func() {
			for i, to := range []string{"a.1", "b.1", "a.1", "a.1"} {
				body := big
				if i > 1 {
					body = "small"
				}
				if err := s.sendAs(uint64(i+2), 0, []string{to}, body, ccp.SendNoCopies); err != nil {
					read <- err
					return
				}
			}
			read <- nil
		}()
		after(time.Second)
		if len(read) > 0 {
			t.Fatal("the reader does not wait")
		}
		close(gate)
		settle()
		select {
		case err := <-read:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("the reader waits although everything in flight is stored")
			s.link.Detach()
			<-read
		}
		check(t, "acknowledged", merged(s.acked()), "2-5")
	})
}

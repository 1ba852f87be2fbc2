package amnesiawg

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/bind"
)

const (
	// diaryFile holds where devices were last, line by line.
	diaryFile = "recent"
	// recent is how long a session that was not renewed can be alive (WireGuard's
	// reject-after time), diaryLimit how many lines are read or kept.
	recent     = 180 * time.Second
	diaryLimit = 20_000
)

// diary notes who was where. A relay whose process was killed turns to those people
// when it is there again: without a word from it they would not know that their
// streams are gone. It need not be on the disk, so it is never synced.
type diary struct {
	mu    sync.Mutex
	path  string
	f     *os.File // nil keeps nothing
	notes map[[32]byte]note
	lines int
}

type note struct {
	at   string // bind.Endpoint.Text
	when time.Time
	// before: it is of an earlier process, which the device may still wait for.
	before bool
}

func openDiary(folder string) (*diary, error) {
	d := &diary{notes: map[[32]byte]note{}}
	if folder == "" {
		return d, nil
	}
	d.path = filepath.Join(folder, diaryFile)
	f, err := os.OpenFile(d.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	d.f = f
	in := bufio.NewScanner(f)
	for d.lines < diaryLimit && in.Scan() {
		d.lines++
		d.read(in.Text())
	}
	return d, nil
}

// read takes a line over; one that is damaged is nothing.
func (d *diary) read(line string) {
	parts := strings.Split(line, " ")
	if len(parts) != 3 {
		return
	}
	key, err := base64.StdEncoding.DecodeString(parts[0])
	var unix int64
	if _, serr := fmt.Sscan(parts[2], &unix); err != nil || serr != nil || len(key) != 32 {
		return
	}
	d.notes[[32]byte(key)] = note{parts[1], time.Unix(unix, 0), true}
}

func line(public [32]byte, n note) string {
	return fmt.Sprintf("%s %s %d\n", base64.StdEncoding.EncodeToString(public[:]), n.at, n.when.Unix())
}

// add notes where a device is. A note that cannot be written is a pity.
func (d *diary) add(public [32]byte, at string, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.f == nil {
		return
	}
	d.notes[public] = note{at: at, when: now}
	if d.lines >= diaryLimit {
		d.rewrite(now)
	}
	_, _ = d.f.WriteString(line(public, d.notes[public]))
	d.lines++
}

// moved is add for a device that is elsewhere than it was; one that is not known
// stays so.
func (d *diary) moved(public [32]byte, at string, now time.Time) {
	d.mu.Lock()
	n, ok := d.notes[public]
	d.mu.Unlock()
	if ok && n.at != at {
		d.add(public, at, now)
	}
}

// forget drops what is not recent.
func (d *diary) forget(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.f != nil {
		d.rewrite(now)
	}
}

func (d *diary) rewrite(now time.Time) {
	var b strings.Builder
	d.lines = 0
	for public, n := range d.notes {
		if now.Sub(n.when) >= recent {
			delete(d.notes, public)
			continue
		}
		b.WriteString(line(public, n))
		d.lines++
	}
	if d.f.Truncate(0) == nil {
		_, _ = d.f.WriteString(b.String())
	}
}

// waiting are the devices of an earlier process that may still wait for it.
func (d *diary) waiting(now time.Time) map[[32]byte]note {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[[32]byte]note{}
	for public, n := range d.notes {
		if age := now.Sub(n.when); n.before && age >= 0 && age < recent {
			out[public] = n
		}
	}
	return out
}

// take says whether a device is still one of those that wait, and makes it none.
func (d *diary) take(public [32]byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.notes[public]
	was := n.before
	if was {
		n.before = false
		d.notes[public] = n
	}
	return was
}

// close ends the diary of a relay that ends in good order: it has told its clients.
func (d *diary) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.f == nil {
		return
	}
	_ = d.f.Truncate(0)
	if err := d.f.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return
	}
	d.f = nil
}

// recall begins a handshake with everybody who had a session when the relay was last
// heard of. Their streams, which this relay does not know, are then reset at once. Who has
// come by itself is left alone: two handshakes that cross undo each other.
func (s *server) recall() {
	now := time.Now()
	n := 0
	for public, note := range s.diary.waiting(now) {
		expires, ok := s.guests.known(public)
		if !ok || n >= s.cfg.Active || !s.diary.take(public) {
			continue
		}
		e, err := s.bind.ParseEndpoint(note.at)
		if err != nil {
			continue
		}
		if _, entered := s.enter(public, expires, e.(*bind.Endpoint), now); !entered {
			continue
		}
		if p := s.dev.LookupPeer(device.NoisePublicKey(public)); p != nil {
			n++
			// Who is not there any more does not answer; WireGuard repeats it.
			_ = p.SendHandshakeInitiation(false)
		}
	}
	if n > 0 {
		s.log.Info("sessions of before are taken up", "devices", n)
	}
}

// whereabouts notes who has changed its address since its last handshake. WireGuard
// alone knows: it believes sealed packets only.
func (s *server) whereabouts(now time.Time) {
	s.mu.Lock()
	n := len(s.peers)
	s.mu.Unlock()
	if n == 0 {
		return
	}
	text, err := s.dev.IpcGet()
	if err != nil {
		return // it is being closed
	}
	var public [32]byte
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "public_key":
			public = [32]byte{}
			_, _ = hex.Decode(public[:], []byte(value))
		case "endpoint":
			s.diary.moved(public, value, now)
		}
	}
}

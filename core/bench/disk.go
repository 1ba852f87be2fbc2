package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// diskBlock is what one commit writes: a message's row with its frame.
const diskBlock = 512

// floor gathers what DiskFloor measured before and after a case.
type floor struct{ wait, syncs []time.Duration }

func (f *floor) add(dir string, rate int, d time.Duration) error {
	wait, syncs, err := DiskFloor(dir, rate, d)
	if err != nil {
		return fmt.Errorf("measuring the disk: %w", err)
	}
	f.wait, f.syncs = append(f.wait, wait...), append(f.syncs, syncs...)
	return nil
}

// DiskFloor measures what a durable message costs on this disk at least: records come
// at a fixed rate to a log that does nothing but gather what waits, write it, and sync.
// wait is from a record's arrival to the end of its sync, sync that call alone. A slow
// sync keeps all waiting that come meanwhile, so wait's percentiles, not sync's, are
// those to hold a latency against. The log lies in dir and is removed.
func DiskFloor(dir string, rate int, d time.Duration) (wait, syncs []time.Duration, err error) {
	const size = 4 << 20
	f, err := os.Create(filepath.Join(dir, "disk-floor"))
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	// Written once before: a log's file is reused, and its blocks are its own.
	if _, err := f.Write(make([]byte, size)); err != nil {
		return nil, nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, nil, err
	}
	var (
		mu      sync.Mutex
		pending []time.Time
		ended   bool
		wake    = make(chan struct{}, 1)
	)
	signal := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	go func() {
		pause := time.Second / time.Duration(rate)
		begin := time.Now()
		for next := begin; next.Sub(begin) < d; next = next.Add(pause) {
			time.Sleep(time.Until(next))
			mu.Lock()
			pending = append(pending, time.Now())
			mu.Unlock()
			signal()
		}
		mu.Lock()
		ended = true
		mu.Unlock()
		signal()
	}()
	var (
		batch []time.Time
		buf   = make([]byte, 0, diskBlock)
		off   int64
		over  bool
	)
	for !over {
		<-wake
		mu.Lock()
		batch, pending = pending, batch[:0]
		over = ended
		mu.Unlock()
		if err != nil || len(batch) == 0 {
			continue
		}
		n := len(batch) * diskBlock
		if n > cap(buf) {
			buf = make([]byte, n)
		}
		if off+int64(n) > size {
			off = 0
		}
		if _, err = f.WriteAt(buf[:n], off); err != nil {
			continue
		}
		off += int64(n)
		began := time.Now()
		if err = syncData(f); err != nil {
			continue
		}
		now := time.Now()
		syncs = append(syncs, now.Sub(began))
		for _, t := range batch {
			wait = append(wait, now.Sub(t))
		}
	}
	return wait, syncs, err
}

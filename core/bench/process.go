package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// usage is what the kernel says of a process.
type usage struct {
	cpu time.Duration
	rss int64 // bytes
}

// clockTick is the unit of times in /proc/PID/stat: USER_HZ is 100 on Linux for
// every architecture that Go supports (proc(5)).
const clockTick = 10 * time.Millisecond

// usageOf reads CPU time and resident memory of a process (Linux).
func usageOf(pid int) (usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, fmt.Errorf("process figures need /proc: %w", err)
	}
	// The second field is the command in parentheses and may hold anything.
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return usage{}, fmt.Errorf("/proc/%d/stat has an unknown form", pid)
	}
	f := bytes.Fields(stat[i+1:])
	if len(f) < 22 {
		return usage{}, fmt.Errorf("/proc/%d/stat has an unknown form", pid)
	}
	var v [3]int64
	for j, k := range []int{11, 12, 21} { // utime, stime, rss in pages
		if v[j], err = strconv.ParseInt(string(f[k]), 10, 64); err != nil {
			return usage{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
	}
	return usage{cpu: time.Duration(v[0]+v[1]) * clockTick, rss: v[2] * int64(os.Getpagesize())}, nil
}

// meter measures both processes over an interval.
type meter struct {
	pid          int
	server, load usage
	began        time.Time
}

func startMeter(pid int) (*meter, error) {
	m := &meter{pid: pid}
	var err error
	if m.server, err = usageOf(pid); err != nil {
		return nil, err
	}
	if m.load, err = usageOf(os.Getpid()); err != nil {
		return nil, err
	}
	m.began = time.Now()
	return m, nil
}

// stop fills in the case.
func (m *meter) stop(c *Case, count int64) error {
	elapsed := time.Since(m.began)
	server, err := usageOf(m.pid)
	if err != nil {
		return err
	}
	load, err := usageOf(os.Getpid())
	if err != nil {
		return err
	}
	c.finish(count, elapsed, server.cpu-m.server.cpu, load.cpu-m.load.cpu)
	c.RSS = float64(server.rss) / (1 << 20)
	return nil
}

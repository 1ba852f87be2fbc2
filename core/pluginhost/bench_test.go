package pluginhost

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/commucat/commucat/plugins/storage/sqlite"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
	"github.com/commucat/commucat/sdk/transport"
)

// Each benchmark compares a plugin process with the same code in this process, in
// turns, so that the ratios mean something on a machine that does other things too.

// way is one way in: an address, and what is told of it.
type way struct {
	name, address string
	took          time.Duration
	trips         []time.Duration
}

// ways are a listener of this process, descriptors that were passed on, and streams
// that are pumped through a socketpair. handle gets every accepted conn.
func ways(b *testing.B, handle func(net.Conn)) (s *stand, all []*way) {
	b.Helper()
	o, err := transport.Open(b.Context(), plain("1.0.0"), nil, map[string]any{"listen": "127.0.0.1:0"})
	must(b, err)
	ln, err := o.Listen(b.Context())
	must(b, err)
	b.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go handle(c)
		}
	}()
	s = newStand(b, func(o *Options) { o.Accept = func(c *Conn) { handle(c) } })
	passed := s.serving(b, "passed", nil)
	pumped := s.serving(b, "pumped", map[string]any{"pump": true})
	return s, []*way{
		{name: "in-process", address: ln.Addr().String()},
		{name: "passed", address: passed.Addr().String()},
		{name: "socketpair", address: pumped.Addr().String()},
	}
}

// BenchmarkThroughput sends 16 KiB at a time to the relay's end.
func BenchmarkThroughput(b *testing.B) {
	for _, clients := range []int{1, 8} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			const each = 32 << 20
			_, all := ways(b, func(c net.Conn) {
				defer c.Close()
				buf := make([]byte, 64<<10)
				for {
					if _, err := c.Read(buf); err != nil {
						break
					}
				}
				_, _ = c.Write(buf[:1])
			})
			send := func(w *way) {
				var group sync.WaitGroup
				began := time.Now()
				for range clients {
					group.Go(func() {
						c, err := net.Dial("tcp", w.address)
						if err != nil {
							b.Error(err)
							return
						}
						defer c.Close()
						buf := make([]byte, 16<<10)
						for range each / clients / len(buf) {
							if _, err := c.Write(buf); err != nil {
								b.Error(err)
								return
							}
						}
						_ = c.(*net.TCPConn).CloseWrite()
						if _, err := io.ReadFull(c, buf[:1]); err != nil {
							b.Error(err)
						}
					})
				}
				group.Wait()
				w.took += time.Since(began)
			}
			for _, w := range all {
				send(w)
				w.took = 0
			}
			n := 0
			for b.Loop() {
				for _, w := range all {
					send(w)
				}
				n++
			}
			for _, w := range all {
				b.ReportMetric(float64(n)*each/1e6/w.took.Seconds(), w.name+"-MB/s")
			}
			for _, w := range all[1:] {
				b.ReportMetric(all[0].took.Seconds()/w.took.Seconds(), w.name+"-ratio")
			}
		})
	}
}

func echoBack(c net.Conn) {
	defer c.Close()
	var buf [64]byte
	for {
		n, err := c.Read(buf[:])
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// BenchmarkRoundTrip sends 64 bytes there and back.
func BenchmarkRoundTrip(b *testing.B) {
	_, all := ways(b, echoBack)
	conns := make([]net.Conn, len(all))
	for i, w := range all {
		c, err := net.Dial("tcp", w.address)
		must(b, err)
		defer c.Close()
		conns[i] = c
	}
	for b.Loop() {
		for i, w := range all {
			w.trips = append(w.trips, roundTrips(b, conns[i], 200)...)
		}
	}
	for _, w := range all {
		slices.Sort(w.trips)
		b.ReportMetric(microseconds(w.trips[len(w.trips)/2]), w.name+"-p50-µs")
	}
	for _, w := range all[1:] {
		b.ReportMetric(microseconds(w.trips[len(w.trips)/2]-all[0].trips[len(all[0].trips)/2]), w.name+"-added-µs")
	}
}

func microseconds(d time.Duration) float64 { return float64(d) / 1e3 }

func roundTrips(b *testing.B, c net.Conn, n int) (trips []time.Duration) {
	var buf [64]byte
	for range n {
		began := time.Now()
		_, err := c.Write(buf[:])
		if err == nil {
			_, err = io.ReadFull(c, buf[:])
		}
		if err != nil {
			b.Fatal(err)
		}
		trips = append(trips, time.Since(began))
	}
	return trips
}

// BenchmarkIdle measures the resident memory of an idle stream in this process and in
// the plugin's. The clients are bare descriptors, so that they cost nothing here.
func BenchmarkIdle(b *testing.B) {
	const streams = 4000
	s, all := ways(b, func(c net.Conn) {
		defer c.Close()
		var one [1]byte
		for {
			if _, err := c.Read(one[:]); err != nil {
				return
			}
			if _, err := c.Write(one[:]); err != nil {
				return
			}
		}
	})
	for b.Loop() {
		for _, w := range all {
			pid := 0
			for _, st := range s.States() {
				if st.Address == w.address {
					pid = st.PID
				}
			}
			idle(b, w, 200)() // what is made once
			here, there := resident(b, os.Getpid()), resident(b, pid)
			end := idle(b, w, streams)
			b.ReportMetric(float64(resident(b, os.Getpid())-here)/streams/1024, w.name+"-here-KiB")
			if w.name != "in-process" {
				b.ReportMetric(float64(resident(b, pid)-there)/streams/1024, w.name+"-there-KiB")
			}
			end()
		}
	}
}

// idle opens streams that have each carried a byte both ways.
func idle(b *testing.B, w *way, n int) (end func()) {
	b.Helper()
	at := transport.AddrPort(addr(w.address))
	fds := make([]int, 0, n)
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		must(b, err)
		fds = append(fds, fd)
		must(b, unix.Connect(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}))
		var one [1]byte
		if _, err := unix.Write(fd, one[:]); err != nil {
			b.Fatal(err)
		}
		if n, err := unix.Read(fd, one[:]); err != nil || n != 1 {
			b.Fatal(n, err)
		}
	}
	return func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
}

func addr(text string) net.Addr {
	a, err := net.ResolveTCPAddr("tcp", text)
	if err != nil {
		panic(err)
	}
	return a
}

// resident is a process's resident memory once it is quiet.
func resident(b *testing.B, pid int) int {
	b.Helper()
	if pid == 0 {
		return 0
	}
	if pid == os.Getpid() {
		runtime.GC()
		debug.FreeOSMemory()
	} else {
		time.Sleep(time.Second) // its own collector's time
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	must(b, err)
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	must(b, err)
	return pages * os.Getpagesize()
}

// BenchmarkNeighbours measures the tail of a transport's round trips while another
// plugin floods its log, hangs, or panics again and again, in turns with none: medians of
// the turns' p99 and of its ratio to that of the "none" before and after. Panics are
// measured from the first start to the last, when the plugin is parked: the worst second
// of two minutes.
func BenchmarkNeighbours(b *testing.B) {
	s := newStand(b, func(o *Options) { o.Accept = func(c *Conn) { echoBack(c) }; o.Drain = time.Millisecond })
	tr := s.serving(b, "neighbour", map[string]any{"pump": true})
	var conns []net.Conn
	for range 4 {
		c, err := net.Dial("tcp", tr.Addr().String())
		must(b, err)
		defer c.Close()
		conns = append(conns, c)
	}
	// trips makes round trips of a fixed rate, as clients that wait for each other do,
	// and gives their p99.
	trips := func(n int) float64 {
		var all []time.Duration
		for range n {
			for _, c := range conns {
				all = append(all, roundTrips(b, c, 1)...)
			}
			time.Sleep(time.Millisecond)
		}
		slices.Sort(all)
		return microseconds(all[len(all)*99/100])
	}
	names := []string{"flood", "hang", "panic"}
	p99, ratios := map[string][]float64{}, map[string][]float64{}
	for b.Loop() {
		before := trips(400)
		for _, name := range names {
			bad, err := s.Transport(spec("hostile", map[string]any{"behave": name}))
			must(b, err)
			if name == "flood" {
				eventually(b, "it floods", func() bool { return s.States()[0].PID != 0 })
			}
			if name != "panic" {
				trips(100) // its start is over
			}
			during := trips(400)
			if name == "panic" && os.Getenv("COMMUCAT_SOAK") != "" {
				during = trips(40000) // until the next two minutes may begin
			}
			bad.Stop()
			trips(50) // so is its end
			after := trips(400)
			p99["none"], p99[name] = append(p99["none"], after), append(p99[name], during)
			ratios[name] = append(ratios[name], 2*during/(before+after))
			before = after
		}
	}
	median := func(all []float64) float64 { slices.Sort(all); return all[len(all)/2] }
	b.ReportMetric(median(p99["none"]), "none-p99-µs")
	for _, name := range names {
		b.ReportMetric(median(p99[name]), name+"-p99-µs")
		b.ReportMetric(median(ratios[name]), name+"-ratio")
	}
}

// callers appends one row each and waits, again and again, through one committer a
// lane that sends whatever has gathered.
func callers(b *testing.B, st storage.Store, t storage.Traits, n int, d time.Duration) (rows int) {
	b.Helper()
	type call struct {
		row  storage.Append
		done chan error
	}
	lanes := make([]chan call, t.Lanes)
	var committers, group sync.WaitGroup
	for i := range lanes {
		lanes[i] = make(chan call, n)
		committers.Go(func() {
			for first := range lanes[i] {
				batch := []call{first}
				for len(batch) < t.Batch && len(lanes[i]) > 0 {
					batch = append(batch, <-lanes[i])
				}
				list := make([]storage.Append, len(batch))
				for j := range batch {
					list[j] = batch[j].row
				}
				out, err := st.Queues.Append(b.Context(), time.Now(), storage.Batch{Rows: list})
				for j := range batch {
					if err == nil {
						batch[j].done <- out[j].Err
						continue
					}
					batch[j].done <- err
				}
			}
		})
	}
	until, counts := time.Now().Add(d), make([]int, n)
	for i := range n {
		group.Go(func() {
			row := storage.Append{Queue: fmt.Sprintf("%p-%d", &counts[0], i), Payload: make([]byte, 512), Expires: time.Now().Add(time.Hour)}
			done := make(chan error, 1)
			for time.Now().Before(until) {
				counts[i]++
				row.ID[0], row.ID[1], row.ID[2] = byte(counts[i]), byte(counts[i]>>8), byte(counts[i]>>16)
				lanes[storage.Lane(row.Queue, t.Lanes)] <- call{row, done}
				if err := <-done; err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	for _, l := range lanes {
		close(l)
	}
	committers.Wait()
	for _, c := range counts {
		rows += c
	}
	return rows
}

// BenchmarkBatches appends whole batches to a storage that does nothing, several at a
// time: what is left is the way there.
func BenchmarkBatches(b *testing.B) {
	s := newStand(b, nil)
	st, traits, err := s.Storage(b.Context(), Spec{Name: "there", Plugin: "noop", Settings: Settings{Memory: memoryLimit}})
	must(b, err)
	const inFlight, batches = 4, 50
	total := 0
	for b.Loop() {
		var group sync.WaitGroup
		for lane := range traits.Lanes {
			for range inFlight {
				group.Go(func() {
					rows := make([]storage.Append, traits.Batch)
					for i := range rows {
						rows[i] = storage.Append{Queue: fmt.Sprint("queue-", lane), Payload: make([]byte, 512), Expires: time.Now().Add(time.Hour)}
						rows[i].ID[0], rows[i].ID[1] = byte(i), byte(i>>8)
					}
					for range batches {
						out, err := st.Queues.Append(b.Context(), time.Now(), storage.Batch{Rows: rows})
						if err != nil || len(out) != len(rows) {
							b.Error(len(out), err)
							return
						}
					}
				})
			}
		}
		group.Wait()
		total += traits.Lanes * inFlight * batches * traits.Batch
	}
	b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkAppend compares storages in this process and in one of their own, with a
// thousand callers that wait.
func BenchmarkAppend(b *testing.B) {
	for _, tt := range []struct {
		name   string
		plugin sdk.Plugin
		raw    map[string]any
	}{
		{"pebble", sqlite.Plugin(), nil},
		{"sqlite", sqlite.Plugin(), map[string]any{"queues": "sqlite"}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			s := newStand(b, nil)
			there, traits, err := s.Storage(b.Context(), Spec{Name: "there", Plugin: tt.plugin.Name(), Raw: tt.raw, Settings: Settings{Memory: memoryLimit}})
			must(b, err)
			here, err := storage.Open(b.Context(), tt.plugin, sdk.NewEnv(sdk.EnvOptions{State: b.TempDir()}), tt.raw)
			must(b, err)
			if here.Close != nil {
				defer func() { must(b, here.Close(context.Background())) }()
			}
			const turn = time.Second
			rows, turns := [2]int{}, 0
			for b.Loop() {
				for i, st := range []storage.Store{here, there} {
					rows[i] += callers(b, st, traits, 1000, turn)
				}
				turns++
			}
			for i, name := range []string{"in-process", "plugin"} {
				b.ReportMetric(float64(rows[i])/float64(turns)/turn.Seconds(), name+"-rows/s")
			}
			b.ReportMetric(float64(rows[1])/float64(rows[0]), "ratio")
		})
	}
}

package bench

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// Report is the outcome of a run.
type Report struct {
	Time    time.Time `json:"time"`
	Version string    `json:"version"`
	Go      string    `json:"go"`
	CPUs    int       `json:"cpus"`
	Cases   []Case    `json:"cases"`
}

// NewReport begins a report of this machine.
func NewReport(version string, now time.Time) *Report {
	return &Report{Time: now.UTC(), Version: version, Go: runtime.Version(), CPUs: runtime.NumCPU()}
}

// Case is one measurement.
type Case struct {
	Name      string `json:"name"`
	Transport string `json:"transport"`
	Clients   int    `json:"clients"`
	Bytes     int    `json:"bytes,omitempty"`
	// Count operations took Seconds: Rate a second.
	Count   int64   `json:"count"`
	Seconds float64 `json:"seconds"`
	Rate    float64 `json:"rate,omitempty"`
	Unit    string  `json:"unit"`
	// CPU time of the server and of the load generator, microseconds an operation.
	ServerCPU float64 `json:"server_cpu_us"`
	LoadCPU   float64 `json:"load_cpu_us"`
	// Latency from Send to the recipient's handler, milliseconds.
	Latency *Percentiles `json:"latency_ms,omitempty"`
	// Disk is what the same messages would have waited, milliseconds, in a log on the
	// relay's disk that does nothing else, measured before and after the case; Sync is
	// the disk's time for one write made durable. Together they say how much of Latency
	// is the disk's.
	Disk *Percentiles `json:"disk_ms,omitempty"`
	Sync *Percentiles `json:"sync_ms,omitempty"`
	// TLS is the CPU time, microseconds, of both ends of a bare TLS handshake on this
	// machine, measured before and after the case: what to hold a connect against.
	TLS float64 `json:"tls_us,omitempty"`
	// Idle sessions: server memory a session, KiB, and CPU, percent of one core.
	MemoryKiB  float64 `json:"memory_kib,omitempty"`
	CPUPercent float64 `json:"cpu_percent,omitempty"`
	// RSS is the server's resident memory at the end, MiB.
	RSS float64 `json:"rss_mib,omitempty"`
	// Lost and Repeated must be 0.
	Lost     int64  `json:"lost"`
	Repeated int64  `json:"repeated"`
	Error    string `json:"error,omitempty"`
}

// Percentiles of a distribution.
type Percentiles struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// percentiles sorts d.
func percentiles(d []time.Duration) *Percentiles {
	if len(d) == 0 {
		return nil
	}
	slices.Sort(d)
	at := func(q float64) float64 {
		i := min(int(q*float64(len(d))), len(d)-1)
		return float64(d[i]) / float64(time.Millisecond)
	}
	return &Percentiles{P50: at(.5), P90: at(.9), P99: at(.99), P999: at(.999), Max: at(1)}
}

func (c *Case) finish(count int64, elapsed time.Duration, server, load time.Duration) {
	c.Count, c.Seconds = count, elapsed.Seconds()
	if count == 0 || elapsed <= 0 {
		return
	}
	c.Rate = float64(count) / elapsed.Seconds()
	c.ServerCPU = server.Seconds() * 1e6 / float64(count)
	c.LoadCPU = load.Seconds() * 1e6 / float64(count)
}

// Print writes the report as a table.
func (r *Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "case\ttransport\tclients\tcount\trate\tunit\tserver us\tload us\tp50 ms\tp99 ms\tdisk p50\tdisk p99\tTLS us\tmemory\t")
	for _, c := range r.Cases {
		if c.Error != "" {
			fmt.Fprintf(t, "%s\t%s\t%d\t\t\t%s\t\n", c.Name, c.Transport, c.Clients, c.Error)
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%.0f\t%s\t%.1f\t%.1f\t%s\t%s\t%s\t%s\t%s\t%s\t\n", c.Name, c.Transport, c.Clients, c.Count, c.Rate, c.Unit,
			c.ServerCPU, c.LoadCPU, c.Latency.p50(), c.Latency.p99(), c.Disk.p50(), c.Disk.p99(), bareTLS(c), memory(c))
	}
	return t.Flush()
}

func (p *Percentiles) p50() string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf("%.2f", p.P50)
}

func (p *Percentiles) p99() string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf("%.2f", p.P99)
}

func bareTLS(c Case) string {
	if c.TLS == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f", c.TLS)
}

func memory(c Case) string {
	if c.MemoryKiB > 0 {
		return fmt.Sprintf("%.1f KiB/session", c.MemoryKiB)
	}
	return fmt.Sprintf("%.0f MiB", c.RSS)
}

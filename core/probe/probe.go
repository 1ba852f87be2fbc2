package probe

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options shape a run. Zero fields take the default in brackets.
type Options struct {
	// ServerName is sent in the hello and as Host to both (the target's host).
	ServerName string
	// Seed chooses the random inputs (1).
	Seed uint64
	// Rounds is how often each kind is tried, each time with other random parts (1).
	Rounds int
	// Wait is how long an answer may take to begin or to go on before the
	// connection counts as left open (1.5 s).
	Wait time.Duration
	// Parallel is how many kinds run at one time (8).
	Parallel int
	// Paths are further paths to ask for, such as a guessed connect path.
	Paths []string
	// Cookie is the name under which made-up tokens are sent ("sid").
	Cookie string
	// Only limits the run to kinds whose name contains one of these words.
	Only []string
	// Timing is the number of samples of each of the timed requests; 0 leaves
	// timing out.
	Timing int
	// Every is the least time between two connections to the target, so that its
	// limits for one address are not what is compared (0: none).
	Every time.Duration
	// Progress is told after each input, one call at a time; it must not block.
	Progress func(Progress)

	pace *pace
}

// Progress is how far a run is.
type Progress struct {
	// Done of All inputs were compared, Differ of them are not equal.
	Done, All, Differ int
}

// pace spreads connections over time.
type pace struct {
	every time.Duration
	mu    sync.Mutex
	next  time.Time
}

// wait returns when the next connection may begin, or ctx has ended.
func (p *pace) wait(ctx context.Context) {
	if p == nil || p.every <= 0 {
		return
	}
	p.mu.Lock()
	now := time.Now()
	at := now
	if p.next.After(now) {
		at = p.next
	}
	p.next = at.Add(p.every)
	p.mu.Unlock()
	t := time.NewTimer(at.Sub(now))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (o Options) withDefaults(address string) Options {
	if o.ServerName == "" {
		o.ServerName = hostOf(address)
	}
	if o.Seed == 0 {
		o.Seed = 1
	}
	if o.Rounds <= 0 {
		o.Rounds = 1
	}
	if o.Wait <= 0 {
		o.Wait = 1500 * time.Millisecond
	}
	if o.Parallel <= 0 {
		o.Parallel = 8
	}
	if o.Cookie == "" {
		o.Cookie = "sid"
	}
	return o
}

// Result is one input and what both sides made of it.
type Result struct {
	Name      string  `json:"name"`
	Round     int     `json:"round"`
	Equal     bool    `json:"equal"`
	Target    Outcome `json:"target"`
	Reference Outcome `json:"reference"`
}

// Outcome is what one side did. Two are equal when Transcript and End are.
type Outcome struct {
	// Transcript is the masked answer in a readable form.
	Transcript string `json:"transcript"`
	// End says how the connection ended: "closed" (FIN, after TLS with
	// close_notify), "cut" (FIN without), "reset", "open" (still open after
	// Wait), "alert …", "refused".
	End string `json:"end"`
	// First is the time from the last byte of the input to the first of the
	// answer; zero if none came.
	First time.Duration `json:"first_ns"`
}

// Report is the outcome of a run.
type Report struct {
	Target    string   `json:"target"`
	Reference string   `json:"reference"`
	Seed      uint64   `json:"seed"`
	Kinds     int      `json:"kinds"`
	Results   []Result `json:"results"`
	Timing    []Timing `json:"timing,omitempty"`
}

// Differences returns the results that are not equal.
func (r Report) Differences() []Result {
	var out []Result
	for _, x := range r.Results {
		if !x.Equal {
			out = append(out, x)
		}
	}
	return out
}

// Equal says whether no byte, order or close differed. Timing is judged
// separately.
func (r Report) Equal() bool { return len(r.Differences()) == 0 }

// String is a page for people: the differences, or that there are none.
func (r Report) String() string {
	var b strings.Builder
	bad := r.Differences()
	fmt.Fprintf(&b, "%d inputs of %d kinds, %d differences (seed %d)\n", len(r.Results), r.Kinds, len(bad), r.Seed)
	for _, x := range bad {
		fmt.Fprintf(&b, "\n%s (round %d)\n  target    [%s] %s\n  reference [%s] %s\n", x.Name, x.Round,
			x.Target.End, indent(x.Target.Transcript), x.Reference.End, indent(x.Reference.Transcript))
	}
	for _, t := range r.Timing {
		fmt.Fprintf(&b, "\n%s: %s", t.Name, t)
	}
	if len(r.Timing) > 0 {
		// Target and reference are two programs, on two machines perhaps.
		fmt.Fprintf(&b, "\nThe two take different times for the plain page as well (%s). What would tell a relay is\n"+
			"another request whose difference is unlike that one's.\n", timed[0])
	}
	return b.String()
}

func indent(s string) string { return strings.ReplaceAll(s, "\n", "\n      ") }

// Chosen are the kinds of input that Run sends: all, or those that Options.Only names.
func Chosen(opt Options) []Kind {
	kinds := Kinds(opt)
	if len(opt.Only) == 0 {
		return kinds
	}
	return slices.DeleteFunc(kinds, func(k Kind) bool {
		return !slices.ContainsFunc(opt.Only, func(word string) bool { return strings.Contains(k.Name, word) })
	})
}

// Run sends the battery to both addresses (host:port). It returns an error only
// when a side cannot be reached at all or ctx ends; differences are in the
// Report, which has what was compared until then. Run ends soon after ctx does. Without an
// end of ctx it is bounded too: by the inputs, Tries, and 20 times Wait for each answer. Certificates are not verified: what is compared is the server.
func Run(ctx context.Context, target, reference string, opt Options) (Report, error) {
	opt = opt.withDefaults(target)
	opt.pace = &pace{every: opt.Every}
	kinds := Chosen(opt)
	report := Report{Target: target, Reference: reference, Seed: opt.Seed, Kinds: len(kinds)}
	for _, addr := range []string{target, reference} {
		if err := reachable(ctx, addr); err != nil {
			return report, err
		}
	}
	report.Results = make([]Result, len(kinds)*opt.Rounds)
	slots := make(chan struct{}, opt.Parallel)
	var (
		group sync.WaitGroup
		mu    sync.Mutex
		far   = Progress{All: len(report.Results)}
	)
	note := func(r Result) {
		mu.Lock()
		defer mu.Unlock()
		if far.Done++; !r.Equal {
			far.Differ++
		}
		if opt.Progress != nil {
			opt.Progress(far)
		}
	}
	for i := range report.Results {
		k, round := kinds[i%len(kinds)], i/len(kinds)
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		group.Go(func() {
			defer func() { <-slots }()
			mu.Lock()
			tries := Tries
			if far.Differ >= hopeless {
				tries = 2
			}
			mu.Unlock()
			if r := compare(ctx, k, round, target, reference, opt, tries); ctx.Err() == nil {
				report.Results[i] = r
				note(r)
			}
		})
	}
	group.Wait()
	if err := ctx.Err(); err != nil {
		report.Results = slices.DeleteFunc(report.Results, func(r Result) bool { return r.Name == "" })
		return report, err
	}
	if opt.Timing > 0 {
		var err error
		if report.Timing, err = timing(ctx, target, reference, opt); err != nil {
			return report, err
		}
	}
	return report, nil
}

// Tries is how often an input is sent again after a difference. Some answers are
// a race inside the server, the cover alone as well: whether a close arrives as
// FIN or RST, or which of two frames is written first.
const Tries = 8

// hopeless is how many inputs may differ before no other is sent more than twice: no race
// explains that many, and the run is to end.
const hopeless = 32

// compare sends one input to both sides at the same time, again while they
// differ. A difference counts when in all tries one side gave no answer that the
// other has ever given.
func compare(ctx context.Context, k Kind, round int, target, reference string, opt Options, tries int) (r Result) {
	type answer struct{ transcript, end string }
	seen := map[answer]int{} // bit 1: by the target, bit 2: by the reference
	for range tries {
		r = Result{Name: k.Name, Round: round}
		opt.pace.wait(ctx)
		var both sync.WaitGroup
		both.Go(func() { r.Target = k.run(ctx, target, source(opt.Seed, k.Name, round), opt) })
		both.Go(func() { r.Reference = k.run(ctx, reference, source(opt.Seed, k.Name, round), opt) })
		both.Wait()
		t, f := answer{r.Target.Transcript, r.Target.End}, answer{r.Reference.Transcript, r.Reference.End}
		seen[t] |= 1
		seen[f] |= 2
		if r.Equal = seen[t] == 3 || seen[f] == 3; r.Equal || ctx.Err() != nil {
			break
		}
	}
	return r
}

// source gives the random source of one input: the same for both sides.
func source(seed uint64, name string, round int) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return rand.New(rand.NewPCG(seed, h.Sum64()+uint64(round)))
}

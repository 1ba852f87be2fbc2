package probe

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// Timing compares the times to the first byte of one request.
type Timing struct {
	Name    string `json:"name"`
	Samples int    `json:"samples"`
	// Target and Reference are the medians.
	Target    time.Duration `json:"target_ns"`
	Reference time.Duration `json:"reference_ns"`
	// Distance is the Kolmogorov-Smirnov statistic, P the probability of one as
	// large between two samples of the same distribution.
	Distance float64 `json:"distance"`
	P        float64 `json:"p"`
}

// String is one line for people.
func (t Timing) String() string {
	return fmt.Sprintf("%d samples, median %v against %v, distance %.3f, p %.4f", t.Samples, t.Target, t.Reference, t.Distance, t.P)
}

// timed are the kinds whose time a relay could betray: a token that must be
// checked, a path that might belong to a transport, and a plain page beside them.
var timed = []string{"http2 GET /", "http2 POST made-up token", "http2 POST /connect"}

// timing takes samples in turns, one connection each, so that load on the
// machine meets both sides alike.
func timing(ctx context.Context, target, reference string, opt Options) ([]Timing, error) {
	var out []Timing
	for _, k := range Kinds(opt) {
		if !slices.Contains(timed, k.Name) {
			continue
		}
		k.first = true
		var a, b []float64
		for i := range opt.Timing {
			if err := ctx.Err(); err != nil {
				return out, err
			}
			opt.pace.wait(ctx)
			first, second, x, y := target, reference, &a, &b
			if i%2 == 1 {
				first, second, x, y = second, first, y, x
			}
			*x = append(*x, float64(k.run(ctx, first, source(opt.Seed, k.Name, i), opt).First))
			*y = append(*y, float64(k.run(ctx, second, source(opt.Seed, k.Name, i), opt).First))
		}
		slices.Sort(a)
		slices.Sort(b)
		d, p := smirnov(a, b)
		out = append(out, Timing{
			Name: k.Name, Samples: len(a), Distance: d, P: p,
			Target: time.Duration(a[len(a)/2]), Reference: time.Duration(b[len(b)/2]),
		})
	}
	return out, nil
}

// smirnov is the two-sample Kolmogorov-Smirnov test on sorted samples, with the
// asymptotic distribution (Numerical Recipes 14.3).
func smirnov(a, b []float64) (d, p float64) {
	if len(a) == 0 || len(b) == 0 {
		return 0, 1
	}
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		x := min(a[i], b[j])
		for i < len(a) && a[i] == x {
			i++
		}
		for j < len(b) && b[j] == x {
			j++
		}
		d = max(d, math.Abs(float64(i)/float64(len(a))-float64(j)/float64(len(b))))
	}
	n := math.Sqrt(float64(len(a)) * float64(len(b)) / float64(len(a)+len(b)))
	l := (n + 0.12 + 0.11/n) * d
	if l < 0.2 {
		return d, 1
	}
	sign := 1.0
	for k := 1; k <= 100; k++ {
		p += sign * math.Exp(-2*l*l*float64(k*k))
		sign = -sign
	}
	return d, min(max(2*p, 0), 1)
}

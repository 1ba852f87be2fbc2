package reality

import "time"

// pace slows one direction of a stranger's connection once it has carried enough. A nil
// pace does nothing. It is for one goroutine.
type pace struct {
	free int64
	rate int64 // bytes a second
	from time.Time
	sent int64
}

func (p *pace) wait(n int) {
	if p == nil || p.rate <= 0 {
		return
	}
	if p.free -= int64(n); p.free > 0 {
		return
	}
	now := time.Now()
	if p.from.IsZero() {
		p.from = now
	}
	p.sent += int64(n)
	due := p.from.Add(time.Duration(float64(p.sent) / float64(p.rate) * float64(time.Second)))
	if ahead := due.Sub(now); ahead > 0 {
		time.Sleep(min(ahead, time.Second))
	} else if ahead < -time.Second {
		p.from, p.sent = now, 0 // no credit for silence
	}
}

package ccp

// Note is Mark for the receiving side, which sees only a part of what a device
// sends: the counter may be any distance ahead. What then falls out below the
// window counts as done. It says whether the counter was not done before; a
// counter of 0 never is.
func (w *Window) Note(counter uint64) (fresh bool) {
	if counter > w.high && counter-w.high > WindowSize {
		w.bits = [WindowSize / 64]uint64{}
		w.high = counter
		w.set(counter)
		return true
	}
	fresh, err := w.Mark(counter)
	return fresh && err == nil
}

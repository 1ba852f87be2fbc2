package storage

// Lane tells which of lanes parallel Append streams a queue belongs to: always
// the same one, so that batches of one queue take effect in order. It divides
// evenly by powers of two: Lane(q, 64)%4 == Lane(q, 4), which a backend may use to
// lock by lane.
func Lane(queue string, lanes int) int {
	if lanes <= 1 {
		return 0
	}
	// FNV-1a, folded: its low bits alone are weak.
	h := uint64(14695981039346656037)
	for i := range len(queue) {
		h = (h ^ uint64(queue[i])) * 1099511628211
	}
	h ^= h >> 32
	return int((h ^ h>>16) & (1<<31 - 1) % uint64(lanes))
}

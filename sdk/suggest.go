package sdk

// Suggest finds the candidate that was probably meant by name: the nearest by
// edit distance (a swap of neighbours counts one), if it is near enough. It
// returns "" otherwise.
func Suggest(name string, candidates []string) string {
	if len(name) > 64 {
		return ""
	}
	best, distance := "", len(name)/3+1
	if distance > 3 {
		distance = 3
	}
	for _, c := range candidates {
		if c == name || len(c) > 64 {
			continue
		}
		if d := editDistance(name, c); d < distance || (d == distance && best == "") {
			best, distance = c, d
		}
	}
	return best
}

// editDistance is the optimal string alignment distance.
func editDistance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

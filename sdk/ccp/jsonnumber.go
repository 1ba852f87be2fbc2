package ccp

import (
	"math"
	"strconv"
)

// floatOverflow holds the significant digits of 2^1024 - 2^970, the smallest
// number that rounds to infinity. It has 309 digits before the point.
const floatOverflow = "179769313486231580793728971405303415079934132710037826936173778980444968292764" +
	"750946649017977587207096330286416692887910946555547851940402630657488671505820681908902000708383" +
	"676273854845817711531764475730270069855571366959622842914819860834936475292719074168444365510704" +
	"342711559699508093042880177904174497792"

// number reads a number and checks that a 64-bit float can hold it. Only the
// magnitude counts, so no digits are collected and nothing is allocated.
func (s *scanner) number() bool {
	i := s.i
	if i < len(s.b) && s.b[i] == '-' {
		i++
	}
	whole := i
	i = digits(s.b, i)
	point := i
	if point == whole || s.b[whole] == '0' && point > whole+1 {
		return false
	}
	if i < len(s.b) && s.b[i] == '.' {
		if i = digits(s.b, i+1); i == point+1 {
			return false
		}
	}
	end := i
	exponent := 0
	if i < len(s.b) && (s.b[i] == 'e' || s.b[i] == 'E') {
		negative := false
		if i++; i < len(s.b) && (s.b[i] == '+' || s.b[i] == '-') {
			negative = s.b[i] == '-'
			i++
		}
		start := i
		for i = digits(s.b, i); start < i && s.b[start] == '0'; {
			start++
		}
		if i == 0 || !isDigit(s.b[i-1]) {
			return false
		}
		exponent = saturated(s.b[start:i])
		if negative {
			exponent = -exponent
		}
	}
	s.i = i
	return finite(s.b[whole:end], point-whole, exponent)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func digits(b []byte, i int) int {
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	return i
}

// saturated reads decimal digits without leading zeros; what has more than
// nine counts as 10^9, which no control payload is long enough to make up for.
func saturated(b []byte) int {
	if len(b) > 9 {
		return 1e9
	}
	n := 0
	for _, c := range b {
		n = 10*n + int(c-'0')
	}
	return n
}

// finite says whether mantissa (digits with at most one point, whole of them
// before it) times 10^exponent rounds to a finite float.
func finite(mantissa []byte, whole, exponent int) bool {
	if whole+exponent < 309 {
		return true
	}
	// Skip zeros in front: the value is 0.d1d2d3… times 10^magnitude.
	magnitude := whole + exponent
	i := 0
	for ; i < len(mantissa) && (mantissa[i] == '0' || mantissa[i] == '.'); i++ {
		if mantissa[i] == '0' {
			magnitude--
		}
	}
	switch {
	case i == len(mantissa) || magnitude < 309:
		return true
	case magnitude > 309:
		return false
	}
	for k := range len(floatOverflow) {
		if i < len(mantissa) && mantissa[i] == '.' {
			i++
		}
		d := byte('0')
		if i < len(mantissa) {
			d = mantissa[i]
			i++
		}
		if d != floatOverflow[k] {
			return d < floatOverflow[k]
		}
	}
	return false
}

// appendNumber appends a valid number in its sorted form: integers of 64 bits
// keep their digits, everything else becomes the shortest float with a
// fraction or an exponent.
func appendNumber(dst, num []byte) []byte {
	if exactInteger(num) {
		return append(dst, num...)
	}
	v, _ := strconv.ParseFloat(string(num), 64)
	return appendFloat(dst, v)
}

// exactInteger says whether num is an integer that fits int64 or uint64. The
// reference reads "-0" as a float.
func exactInteger(num []byte) bool {
	abs, negative := num, false
	if num[0] == '-' {
		abs, negative = num[1:], true
	}
	v, ok := parseUint(abs)
	return ok && (!negative || v > 0 && v <= 1<<63)
}

// parseUint reads decimal digits only, without a leading zero.
func parseUint(b []byte) (uint64, bool) {
	if len(b) == 0 || len(b) > 20 || len(b) > 1 && b[0] == '0' {
		return 0, false
	}
	var v uint64
	for _, c := range b {
		d := uint64(c - '0')
		if d > 9 || v > math.MaxUint64/10 || 10*v > math.MaxUint64-d {
			return 0, false
		}
		v = 10*v + d
	}
	return v, true
}

// appendFloat writes a finite float as the reference's serialiser does: the
// shortest digits that read back, in plain notation from 1e-5 up to below 1e16,
// with an exponent (no plus sign, no padding) outside.
func appendFloat(dst []byte, v float64) []byte {
	if math.Signbit(v) {
		dst, v = append(dst, '-'), -v
	}
	if v == 0 {
		return append(dst, "0.0"...)
	}
	var buf [32]byte
	sci := strconv.AppendFloat(buf[:0], v, 'e', -1, 64) // d[.ddd]e±xx
	var ds [24]byte
	n, i := 0, 0
	for ; sci[i] != 'e'; i++ {
		if sci[i] != '.' {
			ds[n] = sci[i]
			n++
		}
	}
	exp := saturated(sci[i+2:])
	if sci[i+1] == '-' {
		exp = -exp
	}
	point := exp + 1 // digits before the decimal point
	switch {
	case point > 0 && point <= 16:
		for k := range max(n, point) {
			if k == point {
				dst = append(dst, '.')
			}
			if k < n {
				dst = append(dst, ds[k])
			} else {
				dst = append(dst, '0')
			}
		}
		if n <= point {
			dst = append(dst, ".0"...)
		}
		return dst
	case point > -5 && point <= 0:
		dst = append(dst, "0."...)
		for range -point {
			dst = append(dst, '0')
		}
		return append(dst, ds[:n]...)
	}
	dst = append(dst, ds[0])
	if n > 1 {
		dst = append(append(dst, '.'), ds[1:n]...)
	}
	dst = append(dst, 'e')
	return strconv.AppendInt(dst, int64(exp), 10)
}

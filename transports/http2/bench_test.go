package http2_test

import (
	"strconv"
	"testing"
)

func BenchmarkEcho(b *testing.B) {
	for _, size := range []int{256, 64 << 10} {
		b.Run(strconv.Itoa(size), func(b *testing.B) { both.BenchmarkEcho(b, size) })
	}
}

func BenchmarkUp(b *testing.B) { both.BenchmarkUp(b) }

func BenchmarkDown(b *testing.B) { both.BenchmarkDown(b) }

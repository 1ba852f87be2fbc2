package main

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

// printQR draws a QR code with half blocks, light on dark as terminals mostly are.
// Upper case fits the alphanumeric mode and makes the code smaller.
func (a *app) printQR(text string) error {
	code, err := qr.Encode(strings.ToUpper(text), qr.L)
	if err != nil {
		return fmt.Errorf("QR code: %w", err)
	}
	const quiet = 2
	dark := func(x, y int) bool {
		return x >= 0 && y >= 0 && x < code.Size && y < code.Size && code.Black(x, y)
	}
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		for x := -quiet; x < code.Size+quiet; x++ {
			switch top, bottom := dark(x, y), dark(x, y+1); {
			case top && bottom:
				b.WriteByte(' ')
			case top:
				b.WriteString("▄")
			case bottom:
				b.WriteString("▀")
			default:
				b.WriteString("█")
			}
		}
		b.WriteByte('\n')
	}
	_, err = a.out.Write([]byte(b.String()))
	return err
}

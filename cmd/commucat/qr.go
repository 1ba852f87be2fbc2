package main

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

// encodeQR makes the code. Upper case fits the alphanumeric mode and makes it smaller.
func encodeQR(text string) (*qr.Code, error) {
	code, err := qr.Encode(strings.ToUpper(text), qr.L)
	if err != nil {
		return nil, fmt.Errorf("QR code: %w", err)
	}
	return code, nil
}

// qrRows are the code's rows for a program that draws it: 1 is dark.
func qrRows(text string) ([]string, error) {
	code, err := encodeQR(text)
	if err != nil {
		return nil, err
	}
	rows := make([]string, code.Size)
	for y := range rows {
		row := make([]byte, code.Size)
		for x := range row {
			row[x] = '0'
			if code.Black(x, y) {
				row[x] = '1'
			}
		}
		rows[y] = string(row)
	}
	return rows, nil
}

// printQR draws a QR code with half blocks, light on dark as terminals mostly are.
func (a *app) printQR(text string) error {
	code, err := encodeQR(text)
	if err != nil {
		return err
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

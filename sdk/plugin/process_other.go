//go:build !unix

package plugin

func dropBinary() {}

func fileLimit() int { return 0 }

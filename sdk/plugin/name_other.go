//go:build !linux

package plugin

func showName(string) {}

// Package sandbox confines a plugin's process before its first instruction.
//
// The relay does not start a plugin itself: it starts its own program again with a
// hidden first argument (the trampoline). That process gives up what the plugin
// must not have and then executes the plugin's descriptor, so that nothing has to be
// trusted in the plugin:
//
//	the relay ── fork, exec of itself ──► trampoline ── exec ──► plugin
//	                                       own user, no capabilities
//	                                       Landlock: files, TCP, signals
//	                                       seccomp: system calls
//	                                       limits, no new privileges
//
// A [Profile] says what stays possible; it is made from what the plugin needs.
// [Wrap] turns a command into its confined form, [Main] is the trampoline, [Probe]
// says what the kernel has, and [Inspect] looks at a running process.
package sandbox

// Package doctor looks at a relay's configuration, its files, its machine and,
// where it runs, at the relay itself, and says what is wrong or weak and which
// command mends it. It changes nothing.
//
// "Wrong" is what keeps the relay from working or a promise from being kept
// without anybody having asked for that; "weak" is a choice that costs
// something, which is named.
package doctor

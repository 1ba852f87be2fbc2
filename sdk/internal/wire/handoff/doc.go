// Package handoff moves streams between the relay and a plugin process as open
// descriptors, so that no byte of a client passes through the control connection.
//
// A Socket is one end of a SOCK_SEQPACKET pair. Every Message fits in 4 KiB and
// carries at most one descriptor. One Socket is inherited by the plugin as
// descriptor 3; its end of file means that the other process has ended. Each
// listener has a Socket of its own, so that a full queue of one stops only that
// listener's accept loop.
//
// A stream is either a bare network socket, which then needs this process no more
// (KindSocket), or one end of a fresh socketpair whose other end a pump joins to the
// conn that stays here (KindPump).
//
// The receiving side trusts nothing. A descriptor that is no connected stream socket
// is closed and counted; so is a message that was cut off. The sender may keep a
// duplicate and clear O_NONBLOCK, which would make read hold a thread and ignore
// deadlines: a Stream reads and writes only with MSG_DONTWAIT.
package handoff

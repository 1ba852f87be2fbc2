package sandboxtest

import (
	"encoding/binary"
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Foreign are system calls by the doors of other architectures, which a filter must
// close as well.
func Foreign() []Attempt {
	return []Attempt{
		{"32-bit system call", false, func(World) error {
			const getpid32 = 20
			got, err := int80(getpid32)
			if err != nil {
				return err
			}
			if got != int32(syscall.Getpid()) {
				return errors.New("refused")
			}
			return nil
		}},
		{"x32 system call", false, func(World) error {
			const x32 = 0x40000000
			// Where the kernel has none, it does not exist either way.
			return call(x32|unix.SYS_GETPID, 0, 0, 0)
		}},
	}
}

// int80 runs "int $0x80" from memory of its own: no Go code does that.
func int80(nr int32) (int32, error) {
	const size = 4096
	pages, err := unix.Mmap(-1, 0, 2*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Munmap(pages) }()
	// push rbx; mov eax, nr; int 0x80; pop rbx; mov rcx, the second page
	code := []byte{0x53, 0xb8, byte(nr), byte(nr >> 8), byte(nr >> 16), byte(nr >> 24), 0xcd, 0x80, 0x5b, 0x48, 0xb9}
	at := uintptr(unsafe.Pointer(&pages[size]))
	for i := range 8 {
		code = append(code, byte(at>>(8*i)))
	}
	code = append(code, 0x89, 0x01, 0xc3) // mov [rcx], eax; ret
	copy(pages, code)
	if err := unix.Mprotect(pages[:size], unix.PROT_READ|unix.PROT_EXEC); err != nil {
		return 0, err
	}
	entry := &pages[0]
	function := &entry // a function value points to the address of its code
	(*(*func())(unsafe.Pointer(&function)))()
	return int32(binary.LittleEndian.Uint32(pages[size:])), nil
}

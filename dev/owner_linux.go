package dev

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A socket is one row of /proc/net/tcp or tcp6.
type socket struct {
	local  netip.AddrPort
	listen bool
	inode  string
}

// sockets calls each for every TCP socket of this network until it returns false.
func sockets(each func(socket) bool) {
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(f)
		lines.Scan() // heading
		for lines.Scan() {
			fields := strings.Fields(lines.Text())
			if len(fields) < 10 {
				continue
			}
			local, ok := parseAddress(fields[1])
			if ok && !each(socket{local: local, listen: fields[3] == "0A", inode: fields[9]}) {
				f.Close()
				return
			}
		}
		f.Close()
	}
}

// parseAddress reads "0101007F:22B3": words of the address in the machine's order, then the port.
func parseAddress(s string) (netip.AddrPort, bool) {
	address, port, ok := strings.Cut(s, ":")
	raw, err := hex.DecodeString(address)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || err2 != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	ip, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), ok
}

// ownerOf names the program that listens on a port: "mosquitto (pid 812)". Empty when it cannot be seen.
func ownerOf(address string, port int) string {
	wanted, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	found := ""
	sockets(func(s socket) bool {
		at := s.local.Addr()
		if s.listen && int(s.local.Port()) == port && (at == wanted || at.IsUnspecified()) {
			if pid := pidOf(s.inode, nil); pid > 0 {
				name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
				found = fmt.Sprintf("%s (pid %d)", strings.TrimSpace(string(name)), pid)
			}
		}
		return found == ""
	})
	return found
}

// groupOf returns the process group at the near end of a connection that arrived here from address; 0 when unknown.
// Only groups for which among is true are looked at.
func groupOf(address netip.AddrPort, among func(group int) bool) int {
	group := 0
	sockets(func(s socket) bool {
		if s.listen || s.local != address {
			return true
		}
		if pid := pidOf(s.inode, among); pid > 0 {
			group = groupOfProcess(pid)
		}
		return false
	})
	return group
}

func pidOf(inode string, among func(group int) bool) int {
	processes, _ := os.ReadDir("/proc")
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || among != nil && !among(groupOfProcess(pid)) {
			continue
		}
		dir := filepath.Join("/proc", p.Name(), "fd")
		files, _ := os.ReadDir(dir)
		for _, f := range files {
			if to, err := os.Readlink(filepath.Join(dir, f.Name())); err == nil && to == "socket:["+inode+"]" {
				return pid
			}
		}
	}
	return 0
}

// groupOfProcess reads the process group from /proc/<pid>/stat: the third field after the command in parentheses.
func groupOfProcess(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 3 {
		return 0
	}
	group, _ := strconv.Atoi(fields[2])
	return group
}

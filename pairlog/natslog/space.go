package natslog

import (
	"golang.org/x/sys/unix"

	"tandem/pairlog"
)

// diskSpace is the room of the file system that holds dir, as an ordinary process may use it; zero when it is not known.
func diskSpace(dir string) pairlog.Space {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return pairlog.Space{}
	}
	size := int64(st.Bsize)
	return pairlog.Space{Total: int64(st.Blocks-st.Bfree+st.Bavail) * size, Free: int64(st.Bavail) * size}
}

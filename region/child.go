package region

import (
	"context"
	"io"
	"os"
	"os/exec"
)

// Child makes a command that ends with this process however this process ends: its standard input is a pipe that nobody
// else holds, which EndWithParent watches, and on Linux the kernel kills it too. The caller starts it and waits for it;
// own puts it in a process group of its own, so that a Ctrl-C at the terminal reaches the parent alone and signals to the
// group reach the child with its children.
//
// The returned closer is the pipe's end: closing it asks the child to end.
func Child(program string, own bool, args ...string) (*exec.Cmd, io.Closer, error) {
	cmd := exec.Command(program, args...)
	setChild(cmd, own)
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	return cmd, pipe, nil
}

// EndWithParent returns a context that ends when standard input does: the parent is gone or wants this process to end.
// Only for a process that was started with Child.
func EndWithParent(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with the process: a read of standard input cannot be called off
		defer cancel()
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	return ctx
}

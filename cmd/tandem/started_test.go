package main

import "testing"

func TestStartedIsHowToTypeItAgain(t *testing.T) {
	const hash = "fe0d76abc2dcb096e56cc2d6883303094580eb9d48b486ffbdbb30dab40a71e3"
	for _, row := range []struct {
		arg0   string
		module bool // the working directory is the module's
		want   string
	}{
		{"tandem", false, "tandem"},
		{"./bin/tandem", true, "./bin/tandem"},
		{"/opt/my tools/tandem", false, "'/opt/my tools/tandem'"},
		{"/tmp/go-build2377513117/b001/exe/tandem", true, "go run ./cmd/tandem"},
		{"/root/.cache/go-build/fe/" + hash + "-d/tandem", true, "go run ./cmd/tandem"},
		{"/tmp/go-build2377513117/b001/exe/tandem", false, "/tmp/go-build2377513117/b001/exe/tandem"},
		{"/home/me/go-build/tandem", true, "/home/me/go-build/tandem"},
	} {
		if got := started(row.arg0, func(string) bool { return row.module }); got != row.want {
			t.Errorf("%s: %s, not %s", row.arg0, got, row.want)
		}
	}
}

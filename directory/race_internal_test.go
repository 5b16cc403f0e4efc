package directory

import (
	"context"
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/raft/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tandem"
)

func TestJudge(t *testing.T) {
	lost := status.Error(codes.Unavailable, "error reading from server: EOF")
	for _, test := range []struct {
		name string
		err  error
		sent bool
		want fate
	}{
		{"no connection", lost, false, undone},
		{"connection lost under way", lost, true, unknown},
		{"deadline before sending", context.DeadlineExceeded, false, undone},
		{"deadline after sending", context.DeadlineExceeded, true, unknown},
		{"no leader", rpctypes.ErrNoLeader, true, undone},
		{"too many requests", rpctypes.ErrTooManyRequests, true, undone},
		{"leader failed", rpctypes.ErrTimeoutDueToLeaderFail, true, unknown},
		{"leader changed", rpctypes.ErrLeaderChanged, true, unknown},
		{"server stopped", rpctypes.ErrStopped, true, unknown},
		{"proposal dropped", status.Error(codes.Unknown, raft.ErrProposalDropped.Error()), true, undone},
		{"quota", rpctypes.ErrNoSpace, true, refused},
		{"too large", rpctypes.ErrRequestTooLarge, true, refused},
	} {
		if got := judge(test.err, test.sent); got != test.want {
			t.Errorf("%s: fate %d, want %d", test.name, got, test.want)
		}
	}
	if kind := tandem.KindOf(refused.fail(rpctypes.ErrNoSpace)); kind != tandem.Full {
		t.Errorf("quota is %q", kind)
	}
}

func TestTally(t *testing.T) {
	yes, no := answer[bool]{value: true}, answer[bool]{value: false}
	nothing := answer[bool]{err: errors.New("nothing"), fate: undone}
	lost := answer[bool]{err: errors.New("lost"), fate: unknown}
	for _, test := range []struct {
		name    string
		repeat  bool
		answers []answer[bool]
		want    string
	}{
		{"yes", false, []answer[bool]{yes}, "yes"},
		{"no", false, []answer[bool]{no}, "no"},
		{"no after nothing", false, []answer[bool]{nothing, no}, "no"},
		{"nothing", true, []answer[bool]{nothing, nothing}, "undone"},
		{"lost", true, []answer[bool]{lost, nothing}, "unknown"},
		{"yes after lost", true, []answer[bool]{lost, yes}, "yes"},
		{"no after lost may be a refusal of the same", true, []answer[bool]{lost, no}, "unknown"},
		{"no, then the other one was it", true, []answer[bool]{no, yes}, "yes"},
		{"no, then the other one is lost", true, []answer[bool]{no, lost}, "unknown"},
		{"no, and the other one came to nothing", true, []answer[bool]{no, nothing}, "no"},
	} {
		tally := tally[bool]{request: request[bool]{repeat: test.repeat, settle: func(v bool) bool { return v }}}
		tally.flying = len(test.answers)
		got := ""
		for _, a := range test.answers {
			if tally.take(a) {
				got = "yes"
			}
		}
		if got == "" {
			switch end := tally.end(errors.New("ended")); {
			case end.err == nil:
				got = "no"
			case end.fate == unknown:
				got = "unknown"
			default:
				got = "undone"
			}
		}
		if got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
	single := tally[bool]{flying: 1}
	if single.take(lost); !single.over {
		t.Error("a request that can't be repeated goes on after an unknown attempt")
	}
}

func TestGuarded(t *testing.T) {
	for _, test := range []struct {
		name string
		txn  Txn
		want bool
	}{
		{"changes what it compares", Txn{If: []Compare{{Key: "a", Revision: 4}}, Then: []Change{{Key: "a"}}}, true},
		{"creates", Txn{If: []Compare{{Key: "a"}}, Then: []Change{{Key: "a"}}}, false},
		{"changes another", Txn{If: []Compare{{Key: "a", Revision: 4}}, Then: []Change{{Key: "b"}}}, false},
		{"unconditional", Txn{Then: []Change{{Key: "b"}}}, false},
	} {
		if got := test.txn.guarded(); got != test.want {
			t.Errorf("%s: guarded %t", test.name, got)
		}
	}
}

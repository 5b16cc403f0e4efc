package gateway

import (
	"strings"

	"tandem"
)

// Rights is what the bearer of a shared access policy's key may do (specs/wire-facts.md §2).
type Rights uint8

// The rights.
const (
	RegistryRead   Rights = 1 << iota // read identities
	RegistryWrite                     // change identities; Azure grants RegistryRead with it
	ServiceConnect                    // the back end's endpoints
	DeviceConnect                     // the device's endpoints, for any device
)

var rightNames = [...]string{"RegistryRead", "RegistryWrite", "ServiceConnect", "DeviceConnect"}

// ParseRights reads ARM's one string of rights, "RegistryRead, RegistryWrite". It returns an error of kind Invalid for
// a name that is none.
func ParseRights(s string) (Rights, error) {
	var r Rights
next:
	for name := range strings.SplitSeq(s, ",") {
		name = strings.TrimSpace(name)
		for i, known := range rightNames {
			if strings.EqualFold(name, known) {
				r |= 1 << i
				continue next
			}
		}
		return 0, &tandem.Error{Op: "read rights", Kind: tandem.Invalid, On: name}
	}
	return r, nil
}

// String is the form that ARM shows.
func (r Rights) String() string {
	var names []string
	for i, name := range rightNames {
		if r&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// May reports whether r holds all of wanted.
func (r Rights) May(wanted Rights) bool { return r&wanted == wanted }

// A Policy is a shared access policy of a hub as far as a door needs it.
type Policy struct {
	Name   string
	Keys   [2][]byte // primary and secondary as Token.SignedBy takes them; an empty one signs nothing
	Rights Rights
}

// Check reports whether t was made with this policy and grants the rights wanted on path. It returns nil,
// ErrTokenSignature, ErrTokenResource or an error of kind Forbidden. Expiry and host are for the caller to look at.
func (p *Policy) Check(t *Token, path string, wanted Rights) error {
	switch {
	case t.Policy == "" || !strings.EqualFold(t.Policy, p.Name) || !t.SignedBy(p.Keys[:]...):
		return ErrTokenSignature
	case !t.Covers(path):
		return ErrTokenResource
	case !p.Rights.May(wanted):
		return &tandem.Error{Op: "check SAS token", Kind: tandem.Forbidden, On: p.Name,
			Hint: "the policy lacks the right " + (wanted &^ p.Rights).String()}
	}
	return nil
}

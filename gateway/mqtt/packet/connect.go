package packet

import "encoding/binary"

// Connect is a CONNECT packet (§3.1). The Has fields tell an absent field from an empty one.
type Connect struct {
	CleanSession bool
	KeepAlive    uint16 // seconds; 0 means none
	ClientID     []byte // may be empty

	HasWill     bool
	WillQoS     byte
	WillRetain  bool
	WillTopic   []byte
	WillMessage []byte

	HasUsername bool
	Username    []byte
	HasPassword bool
	Password    []byte
}

// ErrLevel is a CONNECT of another protocol version than 3.1.1. The server answers CONNACK with RefusedProtocol and
// closes (§3.1.2.2); every other error closes without an answer.
var ErrLevel = &Error{CONNECT, "the protocol level is not 4", "3.1.2.2"}

const (
	flagClean    = 1 << 1
	flagWill     = 1 << 2
	flagRetain   = 1 << 5
	flagPassword = 1 << 6
	flagUsername = 1 << 7
)

// ParseConnect reads the body of a CONNECT. It returns ErrLevel for MQTT 3.1, 5 and later.
func ParseConnect(body []byte) (Connect, error) {
	var c Connect
	name, b, ok := takeBytes(body)
	if !ok {
		return c, &Error{CONNECT, "the packet ends inside the protocol name", "3.1.2.1"}
	}
	if string(name) == "MQIsdp" { // how 3.1 spelled it
		return c, ErrLevel
	}
	if string(name) != "MQTT" {
		return c, &Error{CONNECT, "the protocol name is not MQTT", "3.1.2.1"}
	}
	if len(b) < 4 {
		return c, &Error{CONNECT, "the variable header is cut short", "3.1.2"}
	}
	level, flags := b[0], b[1]
	if level != 4 {
		return c, ErrLevel
	}
	if err := checkConnectFlags(flags); err != nil {
		return c, err
	}
	c.CleanSession = flags&flagClean != 0
	c.HasWill = flags&flagWill != 0
	c.WillQoS = flags >> 3 & 3
	c.WillRetain = flags&flagRetain != 0
	c.HasPassword = flags&flagPassword != 0
	c.HasUsername = flags&flagUsername != 0
	c.KeepAlive = binary.BigEndian.Uint16(b[2:])
	return c, c.parsePayload(b[4:])
}

func checkConnectFlags(flags byte) error {
	switch {
	case flags&1 != 0:
		return &Error{CONNECT, "the reserved connect flag is set", "3.1.2.3"}
	case flags&flagWill == 0 && flags&(flagRetain|3<<3) != 0:
		return &Error{CONNECT, "will QoS or will retain is set without a will", "3.1.2.5"}
	case flags>>3&3 == 3:
		return &Error{CONNECT, "the will QoS is 3", "3.1.2.6"}
	case flags&flagPassword != 0 && flags&flagUsername == 0:
		return &Error{CONNECT, "there is a password without a user name", "3.1.2.9"}
	}
	return nil
}

func (c *Connect) parsePayload(b []byte) (err error) {
	if c.ClientID, b, err = takeString(CONNECT, "client identifier", b); err != nil {
		return err
	}
	var ok bool
	if c.HasWill {
		if c.WillTopic, b, err = takeString(CONNECT, "will topic", b); err != nil {
			return err
		}
		if len(c.WillTopic) == 0 {
			return &Error{CONNECT, "the will topic is empty", "4.7.3"}
		}
		if c.WillMessage, b, ok = takeBytes(b); !ok {
			return &Error{CONNECT, "the packet ends inside the will message", "3.1.3.3"}
		}
	}
	if c.HasUsername {
		if c.Username, b, err = takeString(CONNECT, "user name", b); err != nil {
			return err
		}
	}
	if c.HasPassword {
		if c.Password, b, ok = takeBytes(b); !ok {
			return &Error{CONNECT, "the packet ends inside the password", "3.1.3.5"}
		}
	}
	if len(b) > 0 {
		return &Error{CONNECT, "there are bytes after the payload", "3.1.3"}
	}
	return nil
}

// AppendConnect appends c as a packet. Every field has to fit 65,535 bytes; the Has fields decide what is written.
func AppendConnect(dst []byte, c *Connect) []byte {
	var flags byte
	length := 10 + 2 + len(c.ClientID)
	if c.CleanSession {
		flags |= flagClean
	}
	if c.HasWill {
		flags |= flagWill | c.WillQoS<<3
		if c.WillRetain {
			flags |= flagRetain
		}
		length += 4 + len(c.WillTopic) + len(c.WillMessage)
	}
	if c.HasUsername {
		flags |= flagUsername
		length += 2 + len(c.Username)
	}
	if c.HasPassword {
		flags |= flagPassword
		length += 2 + len(c.Password)
	}
	dst = appendHeader(dst, CONNECT, 0, length)
	dst = append(dst, 0, 4, 'M', 'Q', 'T', 'T', 4, flags)
	dst = binary.BigEndian.AppendUint16(dst, c.KeepAlive)
	dst = appendBytes(dst, c.ClientID)
	if c.HasWill {
		dst = appendBytes(dst, c.WillTopic)
		dst = appendBytes(dst, c.WillMessage)
	}
	if c.HasUsername {
		dst = appendBytes(dst, c.Username)
	}
	if c.HasPassword {
		dst = appendBytes(dst, c.Password)
	}
	return dst
}

// A ReturnCode is the answer in a CONNACK (§3.2.2.3).
type ReturnCode byte

// The return codes. SDKs try again after RefusedUnavailable only (specs/wire-facts.md §3.1).
const (
	Accepted             ReturnCode = 0
	RefusedProtocol      ReturnCode = 1
	RefusedIdentifier    ReturnCode = 2
	RefusedUnavailable   ReturnCode = 3
	RefusedCredentials   ReturnCode = 4
	RefusedNotAuthorized ReturnCode = 5
)

// AppendConnack appends a CONNACK. Session present may only be said with Accepted.
func AppendConnack(dst []byte, sessionPresent bool, code ReturnCode) []byte {
	var present byte
	if sessionPresent && code == Accepted {
		present = 1
	}
	return append(dst, byte(CONNACK)<<4, 2, present, byte(code))
}

// ParseConnack reads the body of a CONNACK.
func ParseConnack(body []byte) (sessionPresent bool, code ReturnCode, err error) {
	if len(body) != 2 {
		return false, 0, &Error{CONNACK, "it is not two bytes long", "3.2"}
	}
	if body[0] > 1 {
		return false, 0, &Error{CONNACK, "reserved acknowledge flags are set", "3.2.2.1"}
	}
	if body[0] == 1 && body[1] != 0 {
		return false, 0, &Error{CONNACK, "session present comes with a refusal", "3.2.2.2"}
	}
	return body[0] == 1, ReturnCode(body[1]), nil
}

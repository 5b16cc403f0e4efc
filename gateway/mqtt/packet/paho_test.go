package packet_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	paho "github.com/eclipse/paho.mqtt.golang/packets"

	"tandem/gateway/mqtt/packet"
)

// TestAgainstPaho writes random valid packets with Paho's codec: ours has to read the same fields and write the same
// bytes.
func TestAgainstPaho(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 5000 {
		var wire bytes.Buffer
		if err := randomPaho(r).Write(&wire); err != nil {
			t.Fatal(err)
		}
		p := read(t, wire.Bytes())
		ours, err := recode(p)
		if err != nil {
			t.Fatalf("packet %d: % x: %v", i, wire.Bytes(), err)
		}
		if !bytes.Equal(ours, wire.Bytes()) {
			t.Fatalf("packet %d: ours\n% x\nPaho's\n% x", i, ours, wire.Bytes())
		}
	}
}

func randomPaho(r *rand.Rand) paho.ControlPacket {
	id := uint16(1 + r.IntN(65535))
	switch r.IntN(8) {
	case 0:
		return randomPahoConnect(r)
	case 1:
		p := paho.NewControlPacket(paho.Publish).(*paho.PublishPacket)
		p.TopicName, p.Payload, p.Qos, p.Retain = word(r, 1, 300), []byte(word(r, 0, 2000)), byte(r.IntN(3)), r.IntN(2) == 0
		if p.Qos > 0 {
			p.MessageID, p.Dup = id, r.IntN(2) == 0
		}
		return p
	case 2:
		p := paho.NewControlPacket(paho.Subscribe).(*paho.SubscribePacket)
		p.MessageID = id
		for range 1 + r.IntN(8) {
			p.Topics, p.Qoss = append(p.Topics, word(r, 1, 100)), append(p.Qoss, byte(r.IntN(3)))
		}
		return p
	case 3:
		p := paho.NewControlPacket(paho.Unsubscribe).(*paho.UnsubscribePacket)
		p.MessageID = id
		for range 1 + r.IntN(8) {
			p.Topics = append(p.Topics, word(r, 1, 100))
		}
		return p
	case 4:
		p := paho.NewControlPacket(paho.Suback).(*paho.SubackPacket)
		p.MessageID, p.ReturnCodes = id, []byte{0, 1, 2, 0x80}[:1+r.IntN(4)]
		return p
	case 5:
		p := paho.NewControlPacket(paho.Puback).(*paho.PubackPacket)
		p.MessageID = id
		return p
	case 6:
		p := paho.NewControlPacket(paho.Pubrel).(*paho.PubrelPacket)
		p.MessageID = id
		return p
	default:
		return paho.NewControlPacket([]byte{paho.Pingreq, paho.Pingresp, paho.Disconnect}[r.IntN(3)])
	}
}

func randomPahoConnect(r *rand.Rand) paho.ControlPacket {
	c := paho.NewControlPacket(paho.Connect).(*paho.ConnectPacket)
	c.ProtocolName, c.ProtocolVersion = "MQTT", 4
	c.CleanSession, c.Keepalive, c.ClientIdentifier = r.IntN(2) == 0, uint16(r.IntN(65536)), word(r, 0, 128)
	if r.IntN(2) == 0 {
		c.WillFlag, c.WillQos, c.WillRetain = true, byte(r.IntN(3)), r.IntN(2) == 0
		c.WillTopic, c.WillMessage = word(r, 1, 100), []byte(word(r, 0, 500))
	}
	if r.IntN(4) > 0 {
		c.UsernameFlag, c.Username = true, word(r, 0, 300)
		if r.IntN(2) == 0 {
			c.PasswordFlag, c.Password = true, []byte(word(r, 0, 300))
		}
	}
	return c
}

func word(r *rand.Rand, low, high int) string {
	letters := []rune("abcXYZ019/%$#+é€😀 ")
	out := make([]rune, 0, high/4)
	for range low + r.IntN(max(high/4-low, 1)) {
		out = append(out, letters[r.IntN(len(letters))])
	}
	return string(out)
}

// FuzzAgainstPaho holds that whatever ours accepts, Paho accepts with the same meaning. Ours is the stricter one, so
// the opposite does not hold.
func FuzzAgainstPaho(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		p, err := packet.NewReader(bytes.NewReader(wire), len(wire)).Next()
		if err != nil {
			return // Paho would take the announced size; it is asked only about what is all there
		}
		ours, err := recode(p)
		if err != nil {
			return
		}
		theirs, err := paho.ReadPacket(bytes.NewReader(wire))
		if err != nil {
			t.Fatalf("Paho refuses % x: %v", wire, err)
		}
		if p.Type == packet.CONNECT && theirs.(*paho.ConnectPacket).Validate() == paho.ErrRefusedBadProtocolVersion {
			t.Fatalf("Paho sees another protocol in % x", wire)
		}
		var again bytes.Buffer
		if err := theirs.Write(&again); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Bytes(), ours) {
			t.Fatalf("ours\n% x\nPaho's\n% x", ours, again.Bytes())
		}
	})
}

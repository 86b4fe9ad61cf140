package formats

// suspicion is a set of reasons to doubt a record.
type suspicion uint8

const (
	forgedLine suspicion = 1 << iota
	clientNotAnAddress
	truncated
	decodedPath

	// openHead is a note among the parsers, never shown: the line's request goes on in the next line.
	openHead
)

// suspicions holds the list for each set, so that no line allocates one.
var suspicions = [1 << 4][]string{
	1:  {"forged-line"},
	2:  {"client-not-an-address"},
	3:  {"forged-line", "client-not-an-address"},
	4:  {"truncated"},
	5:  {"forged-line", "truncated"},
	6:  {"client-not-an-address", "truncated"},
	7:  {"forged-line", "client-not-an-address", "truncated"},
	8:  {"decoded-path"},
	9:  {"forged-line", "decoded-path"},
	10: {"client-not-an-address", "decoded-path"},
	11: {"forged-line", "client-not-an-address", "decoded-path"},
	12: {"truncated", "decoded-path"},
	13: {"forged-line", "truncated", "decoded-path"},
	14: {"client-not-an-address", "truncated", "decoded-path"},
	15: {"forged-line", "client-not-an-address", "truncated", "decoded-path"},
}

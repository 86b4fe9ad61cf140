package formats

// placement-requestlog, logger placement.requestlog:
//
//	ADDRESS "METHOD URI" status: NNN len: N|- microversion: V|-
//
// Source: placement/requestlog.py. As nova-requestlog, but without a duration, and written when the headers are sent. The path is
// decoded as well. Function requestlog reads it.

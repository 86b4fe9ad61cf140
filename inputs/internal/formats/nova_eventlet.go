package formats

// nova-eventlet: what nova's servers under eventlet write, and masakari's.
//
//	CLIENT "METHOD TARGET HTTP/x.y" status: NNN len: N time: S.SSSSSSS
//
// Source: nova/conf/wsgi.py, [wsgi]/wsgi_log_format (removed with eventlet in 32.0.0); eventlet/wsgi.py gives the values.
// Loggers nova.osapi_compute.wsgi.server, nova.metadata.wsgi.server, nova.ec2.wsgi.server, masakari.<name>.wsgi.server.
//
// The time is oslo.log's: the end of the request, local. CLIENT is X-Forwarded-For without its spaces, a comma, and the peer.
// len counts the status line, the headers and the chunks' framing too. time is in seconds. The request line is raw: it may hold
// quotes, so it ends at the last quote that the fixed tail follows. Function eventlet reads it.

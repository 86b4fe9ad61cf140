package formats

// oslo-eventlet: what oslo.service's WSGI servers write by default: cinder, manila, neutron, ironic, designate and others.
//
//	CLIENT "METHOD TARGET HTTP/x.y" status: NNN  len: N time: S.SSSSSSS
//
// Source: openstack/oslo.service oslo_service/_options.py, wsgi_log_format. Two spaces before len: tell it from
// nova-eventlet; else all is the same. Loggers eventlet.wsgi.server and neutron.wsgi. Function eventlet reads it.

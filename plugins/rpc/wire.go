package rpc

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec of go-plugin's own services
	"google.golang.org/grpc/mem"
)

// protocol is the one protocol that this package speaks: see FRAME.md, Versions.
const protocol = 1

const (
	serviceName = "stacktrail.plugin.v1.Plugin"
	pluginName  = "stacktrail" // of the one thing that go-plugin dispenses

	methodDescribe = "/" + serviceName + "/Describe"
	methodOpen     = "/" + serviceName + "/Open"
	methodProcess  = "/" + serviceName + "/Process"
	methodWrite    = "/" + serviceName + "/Write"
	methodClose    = "/" + serviceName + "/Close"
)

// handshake is what go-plugin's side of the start compares.
func handshake() plugin.HandshakeConfig {
	return plugin.HandshakeConfig{MagicCookieKey: "STACKTRAIL_PLUGIN", MagicCookieValue: "2f1d9c7e5b3a4860", ProtocolVersion: protocol}
}

// Frames are larger than what gRPC's windows and buffers are made for: a frame should pass in one go.
const (
	windowSize = 16 << 20
	bufferSize = 256 << 10
)

// message is what travels: the bytes themselves, without protobuf.
type message struct {
	data []byte
	back *[]byte    // what data is in, for the pool once gRPC has sent it; nil if it is nobody's
	pool *bytesPool // of back
	from mem.Buffer // what data was received in
}

// free gives the memory of a received message back. Nothing of it may be used afterwards.
func (m *message) free() {
	if m.from != nil {
		m.from.Free()
		m.from, m.data = nil, nil
	}
}

// codec passes messages through and leaves the rest, which are go-plugin's, to protobuf.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// Marshal returns the bytes of a message.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(*message)
	switch {
	case !ok:
		return c.CodecV2.Marshal(v)
	case m.back != nil:
		*m.back = m.data
		return mem.BufferSlice{mem.NewBuffer(m.back, m.pool)}, nil
	}
	return mem.BufferSlice{mem.SliceBuffer(m.data)}, nil
}

// Unmarshal keeps the bytes until the message is freed.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*message)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	m.from = data.MaterializeToBuffer(mem.DefaultBufferPool())
	m.data = m.from.ReadOnlyData()
	return nil
}

// bytesPool holds buffers for frames. gRPC puts them back when they are sent, which may be after the call has returned.
type bytesPool struct{ pool sync.Pool }

// mostPooled: a frame of a usual batch is well below it.
const mostPooled = 4 << 20

// Get returns a buffer of any capacity.
func (p *bytesPool) Get(n int) *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok && cap(*b) >= n {
		*b = (*b)[:n]
		return b
	}
	b := make([]byte, n)
	return &b
}

// Put takes a buffer back.
func (p *bytesPool) Put(b *[]byte) {
	if cap(*b) <= mostPooled {
		p.pool.Put(b)
	}
}

// frameOf makes a message of what build lays out in w, which gets a buffer for it from the pool.
func (p *bytesPool) frameOf(w *writer, build func() []byte) *message {
	b := p.Get(0)
	w.buf = *b
	m := &message{data: build(), back: b, pool: p}
	w.buf = nil
	return m
}

// service is what a server answers. The replies are messages that are gRPC's once they are returned.
type service interface {
	describe(ctx context.Context, in *message) (*message, error)
	open(ctx context.Context, in *message) (*message, error)
	process(ctx context.Context, in *message) (*message, error)
	write(ctx context.Context, in *message) (*message, error)
	close(ctx context.Context, in *message) (*message, error)
}

// serviceDesc describes the service to gRPC.
func serviceDesc() *grpc.ServiceDesc {
	method := func(name string, f func(service, context.Context, *message) (*message, error)) grpc.MethodDesc {
		return grpc.MethodDesc{MethodName: name, Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(message)
			if err := decode(in); err != nil {
				return nil, err
			}
			out, err := f(srv.(service), ctx, in)
			if err != nil {
				return nil, err
			}
			return out, nil
		}}
	}
	return &grpc.ServiceDesc{ServiceName: serviceName, HandlerType: (*service)(nil), Methods: []grpc.MethodDesc{
		method("Describe", service.describe), method("Open", service.open), method("Process", service.process),
		method("Write", service.write), method("Close", service.close),
	}}
}

// both is the plugin as go-plugin sees it on both sides.
type both struct {
	plugin.NetRPCUnsupportedPlugin
	service // nil on the agent's side
}

// GRPCServer registers the service. go-plugin calls it in the plugin.
func (b *both) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	s.RegisterService(serviceDesc(), b.service)
	return nil
}

// GRPCClient hands out the connection. go-plugin calls it in the agent.
func (b *both) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}

// newServer makes the plugin's gRPC server.
func newServer(opts []grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(opts,
		grpc.ForceServerCodecV2(newCodec()), grpc.MaxRecvMsgSize(maxFrame), grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.InitialWindowSize(windowSize), grpc.InitialConnWindowSize(windowSize), grpc.ReadBufferSize(bufferSize), grpc.WriteBufferSize(bufferSize),
	)...)
}

// dialOptions are the agent's.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(newCodec()), grpc.MaxCallRecvMsgSize(maxFrame), grpc.MaxCallSendMsgSize(maxFrame)),
		grpc.WithInitialWindowSize(windowSize), grpc.WithInitialConnWindowSize(windowSize), grpc.WithReadBufferSize(bufferSize), grpc.WithWriteBufferSize(bufferSize),
	}
}

// before returns a context that ends a tenth before the deadline, so that who keeps to it can still answer.
func before(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-time.Until(end)/10))
}

//go:build !poison

package event

// Poisoned says that released arenas are overwritten, so that a view that was kept shows at once.
const Poisoned = false

// Shim

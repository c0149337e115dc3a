import Glibc
import Shim

exit(Program.main(CommandLine.arguments))

import Glibc
import Runtime

exit(Runtime.main(CommandLine.arguments))

// swift-tools-version: 6.1
import PackageDescription

/// Programs that live beside every container: no Foundation, no Dispatch, no concurrency runtime,
/// linked statically and trimmed. See docs/decisions for the figures behind these flags.
let leanSwift: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .unsafeFlags(["-warnings-as-errors"]),
    .unsafeFlags(
        ["-Osize", "-Xfrontend", "-disable-reflection-metadata"], .when(configuration: .release)),
]
let plainSwift: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .unsafeFlags(["-warnings-as-errors"]),
]
/// Generated code is held to the language mode, not to the warnings of a compiler newer than its generator.
let generatedSwift: [SwiftSetting] = [.swiftLanguageMode(.v6)]

let staticLink: [LinkerSetting] = [
    .unsafeFlags(
        ["-static-executable", "-Xlinker", "--gc-sections", "-Xlinker", "-s"],
        .when(configuration: .release))
]

let protobuf: Target.Dependency = .product(name: "SwiftProtobuf", package: "swift-protobuf")
let arguments: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let nio: [Target.Dependency] = [
    .product(name: "NIOCore", package: "swift-nio"),
    .product(name: "NIOPosix", package: "swift-nio"),
]

let package = Package(
    name: "ctrd",
    products: [
        .executable(name: "ctrd", targets: ["ctrd"]),
        .executable(name: "ctr-shim", targets: ["ctr-shim"]),
        .executable(name: "ctrun", targets: ["ctrun"]),
        .executable(name: "ctrctl", targets: ["ctrctl"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio.git", exact: "2.101.2"),
        .package(url: "https://github.com/apple/swift-protobuf.git", exact: "1.39.0", traits: []),
        .package(url: "https://github.com/apple/swift-argument-parser.git", exact: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log.git", exact: "1.16.2"),
        .package(url: "https://github.com/groue/GRDB.swift.git", exact: "7.10.0"),
        .package(url: "https://github.com/LebJe/TOMLKit.git", exact: "0.6.0"),
    ],
    targets: [
        // C libraries of the host
        .systemLibrary(name: "CSeccomp", pkgConfig: "libseccomp", providers: [.apt(["libseccomp-dev"])]),
        .systemLibrary(name: "CCap", pkgConfig: "libcap", providers: [.apt(["libcap-dev"])]),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
        .systemLibrary(name: "CCrypto", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(name: "CProtobufC", pkgConfig: "libprotobuf-c", providers: [.apt(["libprotobuf-c-dev"])]),

        // The lean half: everything that lives beside a container
        .target(name: "CLinux"),
        .target(name: "Linux", dependencies: ["CLinux"], swiftSettings: leanSwift),
        .target(name: "OCI", swiftSettings: leanSwift),
        .target(name: "TTRPC", swiftSettings: leanSwift),
        .target(name: "CShimProto", dependencies: ["CProtobufC"]),
        .target(name: "Records", dependencies: ["Linux"], swiftSettings: leanSwift),
        .target(name: "Logs", dependencies: ["Linux"], swiftSettings: leanSwift),
        .target(name: "LogDrivers", dependencies: ["Linux", "CLinux", "Records", "Logs"], swiftSettings: plainSwift),
        .target(
            name: "Runtime", dependencies: ["Linux", "CLinux", "OCI", "CSeccomp", "CCap"], swiftSettings: leanSwift),
        .target(
            name: "Shim", dependencies: ["Linux", "CLinux", "OCI", "TTRPC", "CShimProto", "Records", "Logs"],
            swiftSettings: leanSwift),
        .executableTarget(
            name: "ctrun", dependencies: ["Runtime"], swiftSettings: leanSwift, linkerSettings: staticLink),
        .executableTarget(
            name: "ctr-shim", dependencies: ["Shim"], swiftSettings: leanSwift, linkerSettings: staticLink),

        // The manager and the command line
        .target(name: "CtrProto", dependencies: [protobuf], swiftSettings: generatedSwift),
        .target(
            name: "Store", dependencies: [.product(name: "GRDB", package: "GRDB.swift")], swiftSettings: plainSwift),
        .target(name: "Content", dependencies: ["Linux", "CLinux", "OCI", "CCrypto", "CZlib"], swiftSettings: plainSwift),
        .target(name: "Snapshots", dependencies: ["Linux", "CLinux", "OCI", "Content"], swiftSettings: plainSwift),
        .target(name: "Images", dependencies: ["Linux", "CLinux", "OCI", "Content", "Snapshots"], swiftSettings: plainSwift),
        .target(
            name: "Supervisor",
            dependencies: [
                "Linux", "CLinux", "OCI", "TTRPC", "CtrProto", "Records", "Logs", "LogDrivers", "Store", "Content", "Snapshots", "Images",
                logging,
            ] + nio, swiftSettings: plainSwift),
        .target(
            name: "APITTRPC",
            dependencies: ["Linux", "TTRPC", "CtrProto", "Supervisor", "Images", "Store", "Logs", logging] + nio,
            swiftSettings: plainSwift),
        .executableTarget(
            name: "ctrd",
            dependencies: [
                "Linux", "Content", "Snapshots", "Images", "Supervisor", "APITTRPC", arguments, logging,
                .product(name: "TOMLKit", package: "TOMLKit"),
            ] + nio, swiftSettings: plainSwift),
        .target(
            name: "Commands", dependencies: ["Linux", "OCI", "TTRPC", "CtrProto", arguments], swiftSettings: plainSwift),
        .executableTarget(
            name: "ctrctl", dependencies: ["Commands"], swiftSettings: plainSwift, linkerSettings: staticLink),

        // Tests of what is pure; containers are tested by Tests/Integration through the release programs
        .testTarget(name: "LinuxTests", dependencies: ["Linux", "CLinux"], swiftSettings: plainSwift),
        .testTarget(name: "OCITests", dependencies: ["OCI"], swiftSettings: plainSwift),
        .testTarget(name: "TTRPCTests", dependencies: ["TTRPC"], swiftSettings: plainSwift),
        .testTarget(name: "RecordsTests", dependencies: ["Records", "Logs", "Linux"], swiftSettings: plainSwift),
        .testTarget(name: "LogDriversTests", dependencies: ["LogDrivers", "Records", "Logs", "Linux"], swiftSettings: plainSwift),
        .testTarget(
            name: "ShimTests", dependencies: ["Shim", "Linux", "CShimProto", "CProtobufC", "CtrProto", protobuf], swiftSettings: plainSwift),
        .testTarget(name: "RuntimeTests", dependencies: ["Runtime", "OCI"], swiftSettings: plainSwift),
        .testTarget(
            name: "ImagesTests", dependencies: ["Images", "Content", "Snapshots", "OCI", "Linux", "CLinux", "CZlib"],
            swiftSettings: plainSwift),
        .testTarget(
            name: "SupervisorTests",
            dependencies: [
                "Supervisor", "Store", "OCI", "Images", "CtrProto", "TTRPC", "Linux", .product(name: "GRDB", package: "GRDB.swift"),
            ], swiftSettings: plainSwift),
        .testTarget(name: "CommandsTests", dependencies: ["Commands"], swiftSettings: plainSwift),
    ]
)

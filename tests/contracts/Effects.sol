// SPDX-License-Identifier: Apache-2.0
// What the tests of the guardrails call. The bytecode beside this file is made by
//     cd tests/contracts && npx --yes solc@0.8.30 --optimize --bin -o bin Effects.sol
pragma solidity 0.8.30;

/// An ERC-20 of 6 decimals with permit (EIP-2612) and batches of calls to itself. Everything belongs to the deployer at first.
contract Token {
    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);
    event OwnershipTransferred(address indexed previous, address indexed next);

    string public constant symbol = "USDX";
    uint8 public constant decimals = 6;
    uint256 public constant totalSupply = 1e30;
    bytes32 public immutable DOMAIN_SEPARATOR;
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;
    mapping(address => uint256) public nonces;
    address public owner = msg.sender;

    constructor() {
        balanceOf[msg.sender] = totalSupply;
        DOMAIN_SEPARATOR = keccak256(
            abi.encode(keccak256("EIP712Domain(uint256 chainId,address verifyingContract)"), block.chainid, address(this))
        );
    }

    function transfer(address to, uint256 value) external returns (bool) {
        move(msg.sender, to, value);
        return true;
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        uint256 allowed = allowance[from][msg.sender];
        if (allowed != type(uint256).max) allowance[from][msg.sender] = allowed - value;
        move(from, to, value);
        return true;
    }

    function approve(address spender, uint256 value) external returns (bool) {
        allow(msg.sender, spender, value);
        return true;
    }

    function permit(address holder, address spender, uint256 value, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external {
        require(block.timestamp <= deadline, "expired");
        bytes32 inner = keccak256(
            abi.encode(
                keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"),
                holder, spender, value, nonces[holder]++, deadline
            )
        );
        bytes32 digest = keccak256(abi.encodePacked("\x19\x01", DOMAIN_SEPARATOR, inner));
        require(ecrecover(digest, v, r, s) == holder && holder != address(0), "not signed");
        allow(holder, spender, value);
    }

    function multicall(bytes[] calldata calls) external {
        for (uint256 i = 0; i < calls.length; i++) {
            (bool done, bytes memory result) = address(this).delegatecall(calls[i]);
            if (!done) assembly { revert(add(result, 32), mload(result)) }
        }
    }

    function transferOwnership(address next) external {
        require(msg.sender == owner, "not the owner");
        emit OwnershipTransferred(owner, next);
        owner = next;
    }

    /// A transfer under a name that no standard knows.
    function shove(address to, uint256 value) external {
        move(msg.sender, to, value);
    }

    /// An approval under a name that no standard knows.
    function trust(address spender, uint256 value) external {
        allow(msg.sender, spender, value);
    }

    /// Gives the contract away under a name that no standard knows.
    function abdicate(address next) external {
        emit OwnershipTransferred(msg.sender, next);
        owner = next;
    }

    function move(address from, address to, uint256 value) private {
        require(balanceOf[from] >= value, "not enough");
        unchecked { balanceOf[from] -= value; }
        balanceOf[to] += value;
        emit Transfer(from, to, value);
    }

    function allow(address holder, address spender, uint256 value) private {
        allowance[holder][spender] = value;
        emit Approval(holder, spender, value);
    }
}

/// An NFT, as far as approvals and transfers go.
contract Nft {
    event Transfer(address indexed from, address indexed to, uint256 indexed id);
    event ApprovalForAll(address indexed owner, address indexed operator, bool approved);

    mapping(uint256 => address) public ownerOf;
    mapping(address => mapping(address => bool)) public isApprovedForAll;

    function mint(address to, uint256 id) external {
        ownerOf[id] = to;
        emit Transfer(address(0), to, id);
    }

    function setApprovalForAll(address operator, bool approved) external {
        isApprovedForAll[msg.sender][operator] = approved;
        emit ApprovalForAll(msg.sender, operator, approved);
    }

    function safeTransferFrom(address from, address to, uint256 id) external {
        require(ownerOf[id] == from && (msg.sender == from || isApprovedForAll[from][msg.sender]), "not yours");
        ownerOf[id] = to;
        emit Transfer(from, to, id);
    }
}

/// A wallet in the shape of a Safe, without its signatures.
contract Wallet {
    receive() external payable {}

    function execTransaction(
        address to, uint256 value, bytes calldata data, uint8 operation, uint256, uint256, uint256, address, address payable, bytes calldata
    ) external payable returns (bool done) {
        if (operation == 1) (done,) = to.delegatecall(data);
        else (done,) = to.call{value: value}(data);
        require(done, "inner call failed");
    }
}

/// Batches in the shape of Multicall3.
contract Batcher {
    struct Call3Value { address target; bool allowFailure; uint256 value; bytes callData; }

    function aggregate3Value(Call3Value[] calldata calls) external payable {
        for (uint256 i = 0; i < calls.length; i++) {
            (bool done,) = calls[i].target.call{value: calls[i].value}(calls[i].callData);
            require(done || calls[i].allowFailure, "inner call failed");
        }
    }
}

/// Allowances in the shape of Permit2.
contract Permit2 {
    event Approval(address indexed owner, address indexed token, address indexed spender, uint160 amount, uint48 expiration);

    mapping(address => mapping(address => mapping(address => uint160))) public allowance;

    function approve(address token, address spender, uint160 amount, uint48 expiration) external {
        allowance[msg.sender][token][spender] = amount;
        emit Approval(msg.sender, token, spender, amount, expiration);
    }

    function transferFrom(address from, address to, uint160 amount, address token) external {
        if (msg.sender != from) allowance[from][token][msg.sender] -= amount;
        Token(token).transferFrom(from, to, amount);
    }
}

/// Takes from its caller what it was approved for, by a function or by its fallback, and can be turned to take more, or to take it for
/// somebody else.
contract Taker {
    Token immutable token;
    uint256 public times = 1;
    address public beneficiary = address(this);

    constructor(Token asset) { token = asset; }

    function turn(uint256 to, address who) external {
        times = to;
        beneficiary = who;
    }

    function take(uint256 amount) external {
        for (uint256 i = 0; i < times; i++) token.transferFrom(msg.sender, beneficiary, amount);
    }

    fallback() external payable {
        token.transferFrom(msg.sender, beneficiary, 1e6);
    }
}

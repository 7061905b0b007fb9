"""Token trees and what they may cost; numbers only."""

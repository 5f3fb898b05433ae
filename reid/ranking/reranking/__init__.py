"""k-reciprocal re-ranking (Zhong et al., CVPR 2017)."""
